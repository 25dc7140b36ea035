// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var update = flag.Bool("update", false, "rewrite testdata")

func micro(s string) MicroTime {
	m, err := ParseMicroTime(s)
	if err != nil {
		panic(err)
	}
	return m
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

// full has an object of each kind with most of its fields filled.
func full() map[string]Object {
	at := metav1.NewTime(time.Date(2023, 4, 17, 11, 55, 47, 0, time.UTC))
	cpu := resource.MustParse("500m")
	return map[string]Object{
		"cluster": &Cluster{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "new-cluster", Generation: 2, CreationTimestamp: at, Labels: map[string]string{"team": "on"}},
			Spec: ClusterSpec{
				ClusterVersionRef: "postgresql-15",
				Resources:         Resources{CPU: &cpu},
				Settings:          map[string]string{"work_mem": "64MB", "fsync": "on", "max_connections": "200"},
				Local:             &LocalSpec{Port: 5433, DataDirectory: "/srv/pg/new"},
				Restore: &RestoreSpec{
					SourceCluster: "my-pg", Time: new(micro("2023-04-17T19:56:40+08:00")),
					Resolved: &ResolvedTarget{Timeline: 1, StopLSN: "0/3000028", StopInclusive: true, EndLSN: "0/3000060", BackupName: "backup-default-my-pg-20230417195547"},
				},
			},
			Status: ClusterStatus{
				Phase: ClusterRestoring, ObservedGeneration: 2, Version: "15.8", SystemIdentifier: "7222222222222222222",
				Archive: &ArchiveStatus{
					State: ArchiveStreaming, Timeline: 2, RepositoryLSN: "0/5000000", ProvenTime: micro("2023-04-17T11:57:01Z"),
					Gaps: []Gap{{Timeline: 1, From: "0/1000000", To: "0/2000000", Reason: "spool full"}},
				},
				Windows:    []RecoverableWindow{{Timeline: 1, From: micro("2023-04-17T11:55:48.1Z"), To: micro("2023-04-17T11:57:01.000001Z"), FromLSN: "0/2000100", ToLSN: "0/3FFFFFF", Backup: "b"}},
				Restore:    &RestoreStatus{Phase: RestoreFetching, Progress: &Progress{Phase: "files", StartedAt: at, BytesDone: 1, BytesTotal: 2}, Notes: []string{"max_connections raised: the WAL needs 200\nreally"}},
				Conditions: []metav1.Condition{{Type: "Ready", Status: metav1.ConditionFalse, Reason: "Restoring", LastTransitionTime: at}},
			},
		},
		"backuppolicy": &BackupPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "my-pg-postgresql-backup-policy", Annotations: map[string]string{AnnotationDefaultPolicy: "true"}}, Spec: BackupPolicySpec{ClusterRef: "my-pg"}},
		"backup": &Backup{
			ObjectMeta: meta("default", "backup-default-my-pg-20230417195547"), Spec: BackupSpec{ClusterRef: "my-pg", BackupType: BackupSnapshot},
			Status: BackupStatus{Phase: BackupCompleted, Manual: true, StartTimestamp: at, Duration: metav1.Duration{Duration: 62 * time.Second}, TotalSize: 312 << 20, StopTime: micro("2023-04-17T11:55:48.123456Z")},
		},
		"backuprepo": &BackupRepo{ObjectMeta: meta("", "s3"), Spec: BackupRepoSpec{
			Default: true,
			S3:      &S3Repo{Endpoint: "https://s3.cn-northwest-1.amazonaws.com.cn", Region: "cn-northwest-1", Bucket: "demo", CredentialsFile: "/var/lib/kubeblocks/secrets/s3"},
			Sealing: &SealingSpec{Recipients: []string{"age1ujn5m3dns5rdk8ysv85d55ra7sy0w7qy4lhcyff80jm5eeq3xyusalj9wm"}},
		}},
		"addon": &Addon{ObjectMeta: meta("", "csi-s3"), Spec: AddonSpec{
			Installable: InstallableSpec{Selectors: []AddonSelector{{Key: "KubeGitVersion", Operator: "Contains", Values: []string{"eks"}}}},
			Install:     InstallSpec{Enabled: true, Values: map[string]string{"secret.region": "cn-northwest-1"}},
		}},
	}
}

// The goldens are what people see in their editor: a change of order or of
// defaults shows up here.
func TestEncodeGolden(t *testing.T) {
	for name, o := range full() {
		o.SetDefaults()
		if err := o.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got, err := Encode(o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		file := filepath.Join("testdata", name+".yaml")
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		back, err := Decode(got)
		if err != nil {
			t.Fatalf("%s: decode: %v", name, err)
		}
		if diff := cmp.Diff(o, back); diff != "" {
			t.Errorf("%s did not come back:\n%s", name, diff)
		}
		again, err := Encode(back)
		if err != nil || string(again) != string(got) {
			t.Errorf("%s: second encoding differs (%v):\n%s", name, err, cmp.Diff(string(got), string(again)))
		}
	}
}

func TestDefaultsAreIdempotent(t *testing.T) {
	for _, k := range Kinds() {
		o := k.New()
		o.SetDefaults()
		once, _ := Encode(o)
		o.SetDefaults()
		twice, _ := Encode(o)
		if string(once) != string(twice) {
			t.Errorf("%s: %s", k.Name, cmp.Diff(string(once), string(twice)))
		}
	}
}

func TestKinds(t *testing.T) {
	for _, k := range Kinds() {
		o := k.New()
		if got := KindOf(o); got.Name != k.Name {
			t.Errorf("KindOf(%T) is %s", o, got.Name)
		}
		if o.GroupVersionKind() != k.GroupVersionKind() {
			t.Errorf("%T says %v, the registry %v", o, o.GroupVersionKind(), k.GroupVersionKind())
		}
		for _, w := range append([]string{k.Name, k.Plural, k.Singular, k.Resource(), strings.ToUpper(k.Plural)}, k.ShortNames...) {
			if got, ok := LookupKind(w); !ok || got.Name != k.Name {
				t.Errorf("LookupKind(%q) is %q, %v", w, got.Name, ok)
			}
		}
		if SpecOf(o) == nil || StatusOf(o) == nil {
			t.Errorf("%T has no spec or status", o)
		}
	}
	if got := KindFor[*BackupRepo]().Resource(); got != "backuprepos.dataprotection.kubeblocks.io" {
		t.Error(got)
	}
}

func TestValidate(t *testing.T) {
	cluster := func(f func(*Cluster)) Object {
		c := &Cluster{ObjectMeta: meta("default", "my-pg")}
		f(c)
		return c
	}
	policy := func(f func(*BackupPolicySpec)) Object {
		p := &BackupPolicy{ObjectMeta: meta("default", "p"), Spec: BackupPolicySpec{ClusterRef: "my-pg"}}
		f(&p.Spec)
		return p
	}
	repo := func(f func(*BackupRepoSpec)) Object {
		r := &BackupRepo{ObjectMeta: meta("", "r")}
		f(&r.Spec)
		return r
	}
	restore := func(r RestoreSpec) Object { return cluster(func(c *Cluster) { c.Spec.Restore = &r }) }
	for _, c := range []struct {
		name string
		o    Object
		want string // "" is valid
	}{
		{"plain cluster", cluster(func(*Cluster) {}), ""},
		{"cluster name of 40", cluster(func(c *Cluster) { c.Name = strings.Repeat("a", 40) }), ""},
		{"cluster name of 41", cluster(func(c *Cluster) { c.Name = strings.Repeat("a", 41) }), `metadata.name: "` + strings.Repeat("a", 41) + `" has 41 characters, at most 40 are allowed`},
		{"cluster name with a dot", cluster(func(c *Cluster) { c.Name = "my.pg" }), `metadata.name: "my.pg" is not a name of lower-case letters, digits and '-' that starts with a letter and ends with a letter or digit`},
		{"cluster without a namespace", cluster(func(c *Cluster) { c.Namespace = "" }), "metadata.namespace: must be given"},
		{"version 12", cluster(func(c *Cluster) { c.Spec.ClusterVersionRef = "postgresql-12" }), `spec.clusterVersionRef: "postgresql-12" is not one of postgresql-13 to postgresql-18`},
		{"termination policy", cluster(func(c *Cluster) { c.Spec.TerminationPolicy = "delete" }), `spec.terminationPolicy: "delete" is not one of Delete, DoNotTerminate, Halt, WipeOut`},
		{"no storage", cluster(func(c *Cluster) { c.Spec.Storage = resource.MustParse("-1Gi") }), `spec.storage: "-1Gi" is not more than zero`},
		{"owned setting", cluster(func(c *Cluster) { c.Spec.Settings = map[string]string{"Port": "1", "work_mem": "4MB"} }), `spec.settings.Port: is spec.local.port`},
		{"recovery setting", cluster(func(c *Cluster) { c.Spec.Settings = map[string]string{"recovery_target_time": "now"} }), `spec.settings.recovery_target_time: is set by kbcli while it restores`},
		{"minimal wal", cluster(func(c *Cluster) { c.Spec.Settings = map[string]string{"wal_level": "minimal"} }), `spec.settings.wal_level: "minimal" writes too little WAL to restore from: use replica or logical`},
		{"two lines", cluster(func(c *Cluster) { c.Spec.Settings = map[string]string{"a.b": "1\nport = 2"} }), `spec.settings["a.b"]: "1\nport = 2" has more than one line`},
		{"relative directory", cluster(func(c *Cluster) { c.Spec.Local = &LocalSpec{DataDirectory: "a/b"} }), `spec.local.dataDirectory: "a/b" is not an absolute path without . and ..`},
		{"attached", cluster(func(c *Cluster) { c.Spec.Local = &LocalSpec{Attached: true, Connect: "host=/tmp user=postgres"} }), ""},
		{"attached by a URI", cluster(func(c *Cluster) {
			c.Spec.Local = &LocalSpec{Attached: true, Connect: "postgres://me@h:5432/db?application_name=a@b"}
		}), ""},
		{"attached without connect", cluster(func(c *Cluster) { c.Spec.Local = &LocalSpec{Attached: true} }), "spec.local.connect: must be given"},
		{"password", cluster(func(c *Cluster) { c.Spec.Local = &LocalSpec{Attached: true, Connect: "host=h Password = secret"} }), "spec.local.connect: must not hold a password: use passfile=, or ~/.pgpass of the user that runs the agent"},
		{"password in a URI", cluster(func(c *Cluster) {
			c.Spec.Local = &LocalSpec{Attached: true, Connect: "postgresql://me:secret@h1,h2:5432/db"}
		}), "spec.local.connect: must not hold a password: use passfile=, or ~/.pgpass of the user that runs the agent"},
		{"escaped password in a URI", cluster(func(c *Cluster) {
			c.Spec.Local = &LocalSpec{Attached: true, Connect: "postgresql://h/db?p%61ssword=secret"}
		}), "spec.local.connect: must not hold a password: use passfile=, or ~/.pgpass of the user that runs the agent"},

		{"restore a backup", restore(RestoreSpec{SourceCluster: "old", Backup: "b"}), ""},
		{"restore the latest", restore(RestoreSpec{SourceCluster: "old", Latest: true}), ""},
		{"restore nothing", restore(RestoreSpec{SourceCluster: "old"}), "spec.restore: must have a target: time, lsn, xid, name or latest, or a backup"},
		{"restore two targets", restore(RestoreSpec{SourceCluster: "old", LSN: "0/1", Latest: true}), "spec.restore: has more than one target: lsn, latest"},
		{"restore from nowhere", restore(RestoreSpec{Latest: true}), "spec.restore.sourceCluster: must be given"},
		{"restore into itself", restore(RestoreSpec{SourceCluster: "my-pg", Latest: true}), `spec.restore.sourceCluster: "my-pg" is the new cluster itself: name the lineage of the old one`},
		{"restore lsn", restore(RestoreSpec{SourceCluster: "old", LSN: "0-1"}), `spec.restore.lsn: "0-1" is not a position in the WAL such as 0/3000028`},
		{"restore xid", restore(RestoreSpec{SourceCluster: "old", XID: "2"}), `spec.restore.xid: "2" is not a transaction identifier, a number from 3`},
		{"restore exclusive latest", restore(RestoreSpec{SourceCluster: "old", Latest: true, Exclusive: true}), "spec.restore.exclusive: is only for a time, an lsn or an xid"},
		{"restore timeline", restore(RestoreSpec{SourceCluster: "old", Latest: true, Timeline: 1 << 32}), `spec.restore.timeline: "4294967296" is not a timeline, a number from 1 to 4294967295`},

		{"plain policy", policy(func(*BackupPolicySpec) {}), ""},
		{"ttl", policy(func(s *BackupPolicySpec) { s.Retention.TTL = "7x" }), `spec.retention.ttl: "7x" is not a number of days or hours such as 7d or 168h`},
		{"grace", policy(func(s *BackupPolicySpec) { s.Retention.Grace = "soon" }), `spec.retention.grace: "soon" is not a number of days or hours such as 7d or 168h`},
		{"grace of centuries", policy(func(s *BackupPolicySpec) { s.Retention.Grace = "90000d" }), `spec.retention.grace: "90000d" is more than 36500d`},
		{"ttl 0", policy(func(s *BackupPolicySpec) { s.Retention.TTL = "0d" }), `spec.retention.ttl: "0d" is no time at all: use at least 1h`},
		{
			"cron and archive", policy(func(s *BackupPolicySpec) { s.Schedule.Logfile.CronExpression = "@daily"; s.Archive.Mode = "fast" }),
			`spec.schedule.logfile.cronExpression: "@daily" is not five fields such as 0 18 * * *: words are not taken; spec.archive.mode: "fast" is not one of async, sync`,
		},
		{"replay bound", policy(func(s *BackupPolicySpec) { s.Incremental.ReplayBound = resource.MustParse("1Mi") }), `spec.incremental.replayBound: "1Mi" is less than 16Mi`},
		{"spool", policy(func(s *BackupPolicySpec) { s.Archive.Spool.Limit = resource.MustParse("1Mi") }), `spec.archive.spool.limit: "1Mi" is less than 64Mi`},

		{"backup type", &Backup{ObjectMeta: meta("default", "b"), Spec: BackupSpec{ClusterRef: "c", BackupType: "full"}}, `spec.backupType: "full" is not one of snapshot, datafile, incremental`},

		{"directory", repo(func(s *BackupRepoSpec) { s.Filesystem = &FilesystemRepo{Path: "/srv/backups"} }), ""},
		{"no place", repo(func(s *BackupRepoSpec) { s.StorageProvider = ProviderFilesystem }), "spec.filesystem: must be given"},
		{"two places", repo(func(s *BackupRepoSpec) {
			s.StorageProvider, s.Filesystem, s.S3 = ProviderS3, &FilesystemRepo{Path: "/a"}, &S3Repo{Bucket: "demo", Region: "r"}
		}), "spec.filesystem: is only for the storage provider filesystem"},
		{"secret in the endpoint", repo(func(s *BackupRepoSpec) { s.S3 = &S3Repo{Endpoint: "https://key:secret@h", Bucket: "demo"} }), "spec.s3.endpoint: must not hold a user or a password: use credentialsFile"},
		{"prefix", repo(func(s *BackupRepoSpec) { s.S3 = &S3Repo{Region: "r", Bucket: "demo", Prefix: "a/../b"} }), `spec.s3.prefix: "a/../b" has an empty part, . or ..`},
		{"private key", repo(func(s *BackupRepoSpec) {
			s.Filesystem, s.Sealing = &FilesystemRepo{Path: "/a"}, &SealingSpec{Recipients: []string{"AGE-SECRET-KEY-1X"}}
		}), "spec.sealing.recipients[0]: is a private key: give the public one, age1…"},
		{"namespaced repo", &BackupRepo{ObjectMeta: meta("default", "r"), Spec: BackupRepoSpec{Filesystem: &FilesystemRepo{Path: "/a"}}}, "metadata.namespace: must be empty: there is one for the whole installation"},

		{"secret in an addon", &Addon{ObjectMeta: meta("", "csi-s3"), Spec: AddonSpec{Install: InstallSpec{Values: map[string]string{"secret.secretKey": "x"}}}}, `spec.install.values["secret.secretKey"]: is a secret, and objects do not hold secrets`},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.SetDefaults()
			got := ""
			if err := c.o.Validate(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestValidateUpdate(t *testing.T) {
	target := micro("2023-04-17T11:56:40Z")
	for _, c := range []struct {
		name     string
		kind     string
		old, new func(Object)
		want     string
	}{
		{"nothing", "cluster", nil, nil, ""},
		{"grow", "cluster", nil, func(o Object) { o.(*Cluster).Spec.Storage = resource.MustParse("30Gi") }, ""},
		{"shrink", "cluster", nil, func(o Object) { o.(*Cluster).Spec.Storage = resource.MustParse("10Gi") }, `spec.storage: "10Gi" is less than 20Gi: a volume cannot shrink`},
		{"major release", "cluster", nil, func(o Object) { o.(*Cluster).Spec.ClusterVersionRef = "postgresql-16" }, `spec.clusterVersionRef: cannot be changed, it is "postgresql-15"`},
		{"release found out", "cluster", func(o Object) { o.(*Cluster).Spec.ClusterVersionRef = "" }, nil, ""},
		{"moved", "cluster", nil, func(o Object) { o.(*Cluster).Spec.Local.DataDirectory = "/other" }, `spec.local.dataDirectory: cannot be changed, it is "/srv/pg/new"`},
		{"resolved", "cluster", func(o Object) { o.(*Cluster).Spec.Restore.Resolved = nil }, nil, ""},
		{"resolved again", "cluster", nil, func(o Object) { o.(*Cluster).Spec.Restore.Resolved.StopLSN = "0/4" }, "spec.restore: cannot be changed: restore into another new cluster instead"},
		{"another target", "cluster", func(o Object) { o.(*Cluster).Spec.Restore.Resolved = nil }, func(o Object) { o.(*Cluster).Spec.Restore.Time = &target; o.(*Cluster).Spec.Restore.Exclusive = true }, "spec.restore: cannot be changed: restore into another new cluster instead"},
		{"policy of another", "backuppolicy", nil, func(o Object) { o.(*BackupPolicy).Spec.ClusterRef = "x" }, `spec.clusterRef: cannot be changed, it is "my-pg"`},
		{"backup of another", "backup", nil, func(o Object) { o.(*Backup).Spec.ClusterRef = "x" }, `spec.clusterRef: cannot be changed, it is "my-pg"`},
		{"another bucket", "backuprepo", nil, func(o Object) { o.(*BackupRepo).Spec.S3.Bucket = "x" }, `spec.s3.bucket: cannot be changed, it is "demo"`},
		{"unsealed", "backuprepo", nil, func(o Object) { o.(*BackupRepo).Spec.Sealing = nil }, "spec.sealing: cannot be turned on or off: make another repository"},
	} {
		t.Run(c.name, func(t *testing.T) {
			old, new := full()[c.kind], full()[c.kind]
			old.SetDefaults()
			new.SetDefaults()
			if c.old != nil {
				c.old(old)
			}
			if c.new != nil {
				c.new(new)
			}
			got := ""
			if err := new.ValidateUpdate(old); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
