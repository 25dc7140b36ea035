// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// edit changes one thing of an object; a nil value removes it.
type edit struct {
	path  string // "spec.restore.time"; a key in the middle that is not there is made
	value any
}

func (e edit) String() string {
	b, _ := json.Marshal(e.value)
	return e.path + "=" + string(b)
}

func (e edit) apply(o map[string]any) {
	keys := strings.Split(e.path, ".")
	for _, k := range keys[:len(keys)-1] {
		next, ok := o[k].(map[string]any)
		if !ok {
			next = map[string]any{}
			o[k] = next
		}
		o = next
	}
	last := strings.ReplaceAll(keys[len(keys)-1], "·", ".") // a dot in a key
	if e.value == nil {
		delete(o, last)
		return
	}
	o[last] = e.value
}

type object = map[string]any

// verdicts has, for each kind, an object that is valid and what can be changed of it.
var verdicts = map[string]struct {
	base  object
	edits []edit
}{
	v1alpha1.KindCluster: {
		object{},
		[]edit{
			{"metadata.name", "a234567890123456789012345678901234567890"},
			{"metadata.name", "a2345678901234567890123456789012345678901"},
			{"metadata.name", "1a"},
			{"metadata.name", "a.b"},
			{"spec.clusterDefinitionRef", "postgresql"},
			{"spec.clusterDefinitionRef", "mysql"},
			{"spec.clusterVersionRef", "postgresql-15"},
			{"spec.clusterVersionRef", "postgresql-12"},
			{"spec.clusterVersionRef", "postgresql-150"},
			{"spec.terminationPolicy", "WipeOut"},
			{"spec.terminationPolicy", "Never"},
			{"spec.replicas", 1},
			{"spec.replicas", 16},
			{"spec.replicas", 17},
			{"spec.replicas", -1},
			{"spec.storage", "30Gi"},
			{"spec.storage", "10Gi"},
			{"spec.storage", "-1"},
			{"spec.storage", "20480Mi"},
			{"spec.storage", "many"},
			{"spec.storageClassName", "fast"},
			{"spec.storageClassName", "a.b-c"},
			{"spec.storageClassName", "A"},
			{"spec.storageClassName", "a..b"},
			{"spec.resources.cpu", "500m"},
			{"spec.resources.cpu", "0"},
			{"spec.resources.memory", "1Gi"},
			{"spec.resources.memory", "-5"},
			{"spec.stopped", true},
			{"spec.settings.work_mem", "64MB"},
			{"spec.settings.archive_command", "x"},
			{"spec.settings.Archive_Command", "x"},
			{"spec.settings.recovery_target", "x"},
			{"spec.settings.wal_level", "minimal"},
			{"spec.settings.wal_level", "logical"},
			{"spec.settings.WAL_LEVEL", "Minimal"},
			{"spec.settings.auto_explain·log", "on"},
			{"spec.settings.9x", "on"},
			{"spec.settings.a·", "on"},
			{"spec.settings.x", "a\nb"},
			{"spec.settings.x", "a\x00b"},
			{"spec.settings.port", "1"},
			{"spec.settings.portal", "1"},
			{"spec.local.port", 5432},
			{"spec.local.port", 65536},
			{"spec.local.port", -1},
			{"spec.local.dataDirectory", "/srv/pg"},
			{"spec.local.dataDirectory", "/"},
			{"spec.local.dataDirectory", "srv"},
			{"spec.local.dataDirectory", "/srv/../x"},
			{"spec.local.dataDirectory", "/srv/"},
			{"spec.local.dataDirectory", "/srv//x"},
			{"spec.local.dataDirectory", "/srv/..x/.y/..."},
			{"spec.local", object{"attached": true, "connect": "host=/run"}},
			{"spec.local", object{"connect": "host=/run"}},
			{"spec.local", object{"attached": true}},
			{"spec.local", object{"attached": true, "connect": "host=/run password=x"}},
			{"spec.local", object{"attached": true, "connect": "SSLPassword = x"}},
			{"spec.local", object{"attached": true, "connect": "postgres://u:p@h/db"}},
			{"spec.local", object{"attached": true, "connect": "postgres://u@h/db"}},
			{"spec.local", object{"attached": true, "connect": "postgres://h:5432/a@b:c"}},
			{"spec.local", object{"attached": true, "connect": "postgres://h/db?password=x"}},
			{"spec.restore", object{"sourceCluster": "old", "latest": true}},
			{"spec.restore", object{"sourceCluster": "old"}},
			{"spec.restore", object{"latest": true}},
			{"spec.restore", object{"sourceCluster": "old", "backup": "b"}},
			{"spec.restore", object{"sourceCluster": "old", "backup": "b", "lsn": "0/3000028"}},
			{"spec.restore", object{"sourceCluster": "Old", "latest": true}},
			{"spec.restore", object{"sourceCluster": "old", "sourceNamespace": "a.b", "latest": true}},
			{"spec.restore", object{"sourceCluster": "old", "latest": true, "xid": "752"}},
			{"spec.restore", object{"sourceCluster": "old", "name": "x", "lsn": "0/1"}},
			{"spec.restore", object{"sourceCluster": "old", "xid": "752"}},
			{"spec.restore", object{"sourceCluster": "old", "xid": "2"}},
			{"spec.restore", object{"sourceCluster": "old", "xid": "99999999999999999999"}},
			{"spec.restore", object{"sourceCluster": "old", "xid": "0x10"}},
			{"spec.restore", object{"sourceCluster": "old", "lsn": "3000028"}},
			{"spec.restore", object{"sourceCluster": "old", "lsn": "0/123456789"}},
			{"spec.restore", object{"sourceCluster": "old", "time": "2023-04-17T11:56:40.000000Z"}},
			{"spec.restore", object{"sourceCluster": "old", "time": "yesterday"}},
			{"spec.restore", object{"sourceCluster": "old", "time": "2023-04-17T11:56:40.000000Z", "exclusive": true}},
			{"spec.restore", object{"sourceCluster": "old", "latest": true, "exclusive": true}},
			{"spec.restore", object{"sourceCluster": "old", "name": strings.Repeat("é", 31)}},
			{"spec.restore", object{"sourceCluster": "old", "name": strings.Repeat("é", 32)}},
			{"spec.restore", object{"sourceCluster": "old", "name": "a\x00"}},
			{"spec.restore", object{"sourceCluster": "old", "latest": true, "timeline": 4294967295}},
			{"spec.restore", object{"sourceCluster": "old", "latest": true, "timeline": 4294967296}},
			{"spec.restore", object{"sourceCluster": "old", "latest": true, "timeline": -1}},
			{"spec.restore", object{"sourceCluster": "old", "latest": true, "resolved": object{"timeline": 1, "stopLSN": "0/1", "stopInclusive": true, "endLSN": "0/2", "backupName": "b"}}},
			{"spec.restore", object{"sourceCluster": "old", "latest": true, "resolved": object{"timeline": 0, "stopLSN": "0/1", "stopInclusive": true, "endLSN": "0/2", "backupName": "b"}}},
			{"spec.restore", object{"sourceCluster": "old", "latest": true, "resolved": object{"timeline": 1, "stopInclusive": true, "endLSN": "0/2", "backupName": "b"}}},
			{"spec.restore", object{"sourceCluster": "old", "latest": true, "resolved": object{"timeline": 1, "stopLSN": "0/1", "stopInclusive": true, "endLSN": "x", "backupName": ""}}},
		},
	},
	v1alpha1.KindBackupPolicy: {
		object{"clusterRef": "my-pg"},
		[]edit{
			{"metadata.name", "a.b"},
			{"metadata.name", "A"},
			{"spec.clusterRef", nil},
			{"spec.clusterRef", "other"},
			{"spec.clusterRef", "1a"},
			{"spec.clusterRef", strings.Repeat("a", 41)},
			{"spec.backupRepoName", "s3"},
			{"spec.backupRepoName", "S3"},
			{"spec.retention.ttl", "168h"},
			{"spec.retention.ttl", "7D"},
			{"spec.retention.ttl", "7"},
			{"spec.retention.ttl", "0d"},
			{"spec.retention.ttl", "36500d"},
			{"spec.retention.ttl", "36501d"},
			{"spec.retention.ttl", "876000H"},
			{"spec.retention.ttl", "876001h"},
			{"spec.retention.ttl", "99999999999999999999d"},
			{"spec.retention.ttl", "7w"},
			{"spec.retention.grace", "0h"},
			{"spec.retention.grace", "36501d"},
			{"spec.retention.grace", "soon"},
			{"spec.retention.minBackups", 2},
			{"spec.retention.minBackups", -1},
			{"spec.retention.maxBackups", 1},
			{"spec.retention.maxBackups", 3},
			{"spec.retention.maxBackups", -3},
			{"spec.schedule.snapshot.enable", true},
			{"spec.schedule.logfile.enable", true},
			{"spec.schedule.incremental", object{"enable": true}},
			{"spec.schedule.datafile.cronExpression", "0 3 * * 1"},
			{"spec.schedule.datafile.cronExpression", "0 3 * *"},
			{"spec.schedule.datafile.cronExpression", "@daily"},
			{"spec.schedule.datafile.cronExpression", "TZ=UTC 0 3 * * 1"},
			{"spec.schedule.datafile.cronExpression", "0 TZ=UTC 3 * *"},
			{"spec.archive.mode", "sync"},
			{"spec.archive.mode", "maybe"},
			{"spec.archive.tailInterval", "100ms"},
			{"spec.archive.tailInterval", "99ms"},
			{"spec.archive.tailInterval", "1m0s"},
			{"spec.archive.tailInterval", "61s"},
			{"spec.archive.tailInterval", "soon"},
			{"spec.archive.spool.limit", "64Mi"},
			{"spec.archive.spool.limit", "63Mi"},
			{"spec.archive.spool.whenFull", "Gap"},
			{"spec.archive.spool.whenFull", "Panic"},
			{"spec.snapshot.copyToRepository", true},
			{"spec.target", "standby"},
			{"spec.target", "elsewhere"},
			{"spec.incremental.replayBound", "16Mi"},
			{"spec.incremental.replayBound", "1Mi"},
			{"spec.incremental.replayBound", "0"},
		},
	},
	v1alpha1.KindBackup: {
		object{"clusterRef": "my-pg"},
		[]edit{
			{"spec.clusterRef", nil},
			{"spec.clusterRef", "other"},
			{"spec.clusterRef", "-"},
			{"spec.backupPolicyName", "p"},
			{"spec.backupPolicyName", "P"},
			{"spec.backupType", "datafile"},
			{"spec.backupType", "snapshot"},
			{"spec.backupType", "incremental"},
			{"spec.backupType", "full"},
			{"spec.copyOf", "b"},
			{"spec.copyOf", "B"},
			{"spec.target", "primary"},
			{"spec.target", "standby"},
			{"spec.target", "prefer-standby"},
			{"spec.target", "anybody"},
		},
	},
	v1alpha1.KindBackupRepo: {
		object{"storageProvider": "s3", "s3": object{"bucket": "demo", "region": "eu-west-1"}},
		[]edit{
			{"spec.storageProvider", nil},
			{"spec.storageProvider", "filesystem"},
			{"spec.storageProvider", "tape"},
			{"spec.accessMethod", "Tool"},
			{"spec.accessMethod", "Mount"},
			{"spec.default", true},
			{"spec.s3", nil},
			{"spec.filesystem.path", "/srv/backups"},
			{"spec.filesystem.path", "backups"},
			{"spec", object{"filesystem": object{"path": "/srv/backups"}}},
			{"spec", object{"storageProvider": "filesystem", "filesystem": object{}}},
			{"spec", object{"storageProvider": "filesystem", "filesystem": object{"path": "/srv/backups"}}},
			{"spec", object{"storageProvider": "filesystem", "filesystem": object{"path": "/srv/other"}}},
			{"spec.s3.bucket", nil},
			{"spec.s3.bucket", "other"},
			{"spec.s3.bucket", "a"},
			{"spec.s3.bucket", "Demo"},
			{"spec.s3.region", nil},
			{"spec.s3.endpoint", "https://s3.example.com"},
			{"spec.s3.endpoint", "http://127.0.0.1:9000/"},
			{"spec.s3.endpoint", "s3.example.com"},
			{"spec.s3.endpoint", "ftp://s3.example.com"},
			{"spec.s3.endpoint", "https://u:p@s3.example.com"},
			{"spec.s3.endpoint", "https://s3.example.com/bucket"},
			{"spec.s3.endpoint", "https://s3.example.com?x=1"},
			{"spec.s3.endpoint", "https://"},
			{"spec.s3.prefix", "a/b"},
			{"spec.s3.prefix", "/a"},
			{"spec.s3.prefix", "a//b"},
			{"spec.s3.prefix", "a/.."},
			{"spec.s3.prefix", "..."},
			{"spec.s3.prefix", "a/"},
			{"spec.s3.pathStyle", true},
			{"spec.s3.caFile", "/etc/ca.pem"},
			{"spec.s3.caFile", "ca.pem"},
			{"spec.s3.credentialsFile", "/run/secrets/s3"},
			{"spec.s3.credentialsFile", "/run/"},
			{"spec.persistentVolumeClaim.claimName", "b"},
			{"spec.storageProvider", "pvc"},
			{"spec", object{"persistentVolumeClaim": object{"claimName": "b"}}},
			{"spec", object{"persistentVolumeClaim": object{}}},
			{"spec", object{"persistentVolumeClaim": object{"claimName": "b.c"}}},
			{"spec", object{"persistentVolumeClaim": object{"claimName": "B"}}},
			{"spec", object{"persistentVolumeClaim": object{"claimName": "b", "storageClassName": "fast"}}},
			{"spec", object{"persistentVolumeClaim": object{"claimName": "b", "storageClassName": "-"}}},
			{"spec", object{"persistentVolumeClaim": object{"claimName": "b", "capacity": "30Gi"}}},
			{"spec", object{"persistentVolumeClaim": object{"claimName": "b", "capacity": "10Gi"}}},
			{"spec", object{"persistentVolumeClaim": object{"claimName": "b", "capacity": "-1"}}},
			{"spec", object{"persistentVolumeClaim": object{"claimName": "b", "accessMode": "ReadWriteMany"}}},
			{"spec", object{"persistentVolumeClaim": object{"claimName": "b", "accessMode": "ReadOnlyMany"}}},
			{"spec", object{"persistentVolumeClaim": object{"claimName": "b", "createPolicy": "Never"}}},
			{"spec", object{"persistentVolumeClaim": object{"claimName": "b", "createPolicy": "Always"}}},
			{"metadata.name", "a234567890123456789012345678901234567890"},
			{"metadata.name", "a2345678901234567890123456789012345678901"},
			{"metadata.name", "a.b"},
			{"spec.sealing.recipients", []any{recipient}},
			{"spec.sealing.recipients", []any{}},
			{"spec.sealing", object{}},
			{"spec.sealing.recipients", []any{"ssh-ed25519 AAAA", recipient}},
			{"spec.sealing.recipients", []any{recipient, "AGE-SECRET-KEY-1"}},
			{"spec.sealing", object{"recipients": []any{recipient}, "identityFile": "/run/key"}},
			{"spec.sealing", object{"recipients": []any{recipient}, "identityFile": "key"}},
		},
	},
	v1alpha1.KindAddon: {
		object{},
		[]edit{
			{"metadata.name", "csi-s3"},
			{"metadata.name", "a_b"},
			{"spec.type", "Helm"},
			{"spec.type", "Operator"},
			{"spec.description", "x"},
			{"spec.install.enabled", true},
			{"spec.install.extras", []any{"a"}},
			{"spec.install.values.secret·region", "eu"},
			{"spec.install.values.secret·secretKey", "x"},
			{"spec.install.values.secretkeys", "x"},
			{"spec.install.values.PASSWORD", "x"},
			{"spec.installable.autoInstall", true},
			{"spec.installable.selectors", []any{object{"key": "KubeVersion", "operator": "Contains", "values": []any{"1.35"}}}},
			{"spec.installable.selectors", []any{object{"key": "Moon", "operator": "Contains"}}},
			{"spec.installable.selectors", []any{object{"key": "KubeVersion"}}},
			{"spec.installable.selectors", []any{object{"key": "KubeVersion", "operator": "Near"}}},
		},
	},
}

// weaker is what the schema cannot refuse, and why. The API server takes such an object;
// a Store never writes it, and calls it broken if somebody else did.
var weaker = []struct {
	kind string
	edit
	why string
}{
	{v1alpha1.KindCluster, edit{"spec.restore", object{"sourceCluster": "x", "latest": true}}, "a cluster restored from itself: a rule sees the name, and not the namespace"},
	{v1alpha1.KindCluster, edit{"spec.restore", object{"sourceCluster": "old", "time": "0001-01-01T00:00:00Z"}}, "Go's zero time is no time; a schema has no such idea"},
	{v1alpha1.KindCluster, edit{"spec.local", object{"attached": true, "connect": "postgres://h/db?pass%77ord=x"}}, "a password under a name in escapes: rules cannot decode a URL's query"},
	{v1alpha1.KindBackupRepo, edit{"spec.sealing.recipients", []any{"age1x"}}, "a key of age has a checksum, which no rule computes"},
	{v1alpha1.KindBackupPolicy, edit{"spec.schedule.datafile.cronExpression", "99 * * * *"}, "the ranges, names and steps of cron are no pattern that anybody would read"},
	{v1alpha1.KindBackupPolicy, edit{"spec.schedule.datafile.cronExpression", "0 0 31 2 *"}, "the 31st of February needs a calendar"},
}

// recipient is a public key of age.
const recipient = "age1ujn5m3dns5rdk8ysv85d55ra7sy0w7qy4lhcyff80jm5eeq3xyusalj9wm"

// stricter is what the schema refuses and the Go types take: values written out that mean
// that nothing was said, and texts longer than the bounds that rules need to be costed.
var stricter = []struct {
	kind string
	edit
}{
	{v1alpha1.KindCluster, edit{"spec.replicas", 0}},
	{v1alpha1.KindCluster, edit{"spec.terminationPolicy", ""}},
	{v1alpha1.KindCluster, edit{"spec.storage", "0"}},
	{v1alpha1.KindCluster, edit{"spec.settings.x", strings.Repeat("x", 8193)}},
	{v1alpha1.KindCluster, edit{"spec.local", object{"attached": true, "connect": "host=" + strings.Repeat("x", 8192)}}},
	{v1alpha1.KindCluster, edit{"spec.local.dataDirectory", "/" + strings.Repeat("x", 4096)}},
	{v1alpha1.KindBackupPolicy, edit{"spec.retention.ttl", ""}},
	{v1alpha1.KindBackupPolicy, edit{"spec.retention.ttl", strings.Repeat("0", 32) + "7d"}},
	{v1alpha1.KindBackupPolicy, edit{"spec.archive.mode", ""}},
	{v1alpha1.KindBackupPolicy, edit{"spec.archive.tailInterval", "0s"}},
	{v1alpha1.KindBackupPolicy, edit{"spec.archive.spool.limit", "0"}},
	{v1alpha1.KindBackup, edit{"spec.backupType", ""}},
	{v1alpha1.KindBackupRepo, edit{"spec.accessMethod", ""}},
	{v1alpha1.KindAddon, edit{"spec.type", ""}},
}

// build is a valid object of the kind with some edits.
func build(kind string, edits ...edit) object {
	k, _ := v1alpha1.LookupKind(kind)
	var o object
	text, _ := json.Marshal(object{
		"apiVersion": k.Group + "/" + v1alpha1.Version, "kind": kind,
		"metadata": object{"name": "x"}, "spec": verdicts[kind].base,
	})
	_ = json.Unmarshal(text, &o) // a copy
	if k.Namespaced {
		o["metadata"].(object)["namespace"] = "default"
	}
	for _, e := range edits {
		var copied edit
		text, _ := json.Marshal(e.value)
		copied.path = e.path
		_ = json.Unmarshal(text, &copied.value)
		copied.apply(o)
	}
	return o
}

// judge is what the Go types say of an object, after defaults.
func judge(o object) (v1alpha1.Object, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	decoded, err := v1alpha1.Decode(text)
	if err != nil {
		return nil, err
	}
	decoded.SetDefaults()
	return decoded, decoded.Validate()
}

// refused tells a verdict from an accident.
func refused(t *testing.T, err error) bool {
	t.Helper()
	var status apierrors.APIStatus
	if err == nil {
		return false
	}
	if !errors.As(err, &status) || status.Status().Code != http.StatusUnprocessableEntity && status.Status().Code != http.StatusBadRequest {
		t.Fatalf("%T %v", err, err)
	}
	return true
}

// sameSpec compares specs, but for what only SetDefaults can know.
func sameSpec(t *testing.T, what string, ours, theirs v1alpha1.Object) {
	t.Helper()
	switch o := ours.(type) {
	case *v1alpha1.Cluster:
		// The namespace of a new cluster: a schema sees no namespace.
		if r := theirs.(*v1alpha1.Cluster).Spec.Restore; r != nil && r.SourceNamespace == "" {
			r.SourceNamespace = o.Namespace
		}
	case *v1alpha1.BackupRepo:
		// A schema has no default that depends on another field.
		if s := &theirs.(*v1alpha1.BackupRepo).Spec; s.StorageProvider == "" {
			s.StorageProvider = o.Spec.StorageProvider
		}
	}
	a, err := json.Marshal(v1alpha1.SpecOf(ours))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v1alpha1.SpecOf(theirs))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(a), string(b)); diff != "" {
		t.Errorf("%s: defaults (-ours +the server's):\n%s", what, diff)
	}
}

// TestVerdicts: the API server accepts and refuses what Validate does, and sets the
// defaults that SetDefaults does: each edit alone, and pairs of them.
func TestVerdicts(t *testing.T) {
	s, _ := empty(t)
	random := rand.New(rand.NewPCG(1, 2))
	for _, k := range v1alpha1.Kinds() {
		v := verdicts[k.Name]
		cases := [][]edit{{}}
		for _, e := range v.edits {
			cases = append(cases, []edit{e})
		}
		for range 3 * len(v.edits) {
			cases = append(cases, []edit{v.edits[random.IntN(len(v.edits))], v.edits[random.IntN(len(v.edits))]})
		}
		accepted := 0
		for _, edits := range cases {
			o := build(k.Name, edits...)
			what := fmt.Sprintf("%s %v", k.Name, edits)
			ours, err := judge(o)
			namespace := ""
			if k.Namespaced {
				namespace = "default"
			}
			text, theirErr := post(t.Context(), s, k, namespace, o, "dryRun", "All", "fieldValidation", "Strict")
			if refused(t, theirErr) != (err != nil) {
				t.Errorf("%s:\n  ours %v\n  the server's %v", what, err, theirErr)
				continue
			}
			if err != nil {
				continue
			}
			accepted++
			theirs, err := v1alpha1.Decode(text)
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			sameSpec(t, what, ours, theirs)
		}
		if accepted < 5 || accepted == len(cases) {
			t.Errorf("%s: %d of %d were accepted: that compares nothing", k.Name, accepted, len(cases))
		}
	}
}

// TestVerdictsApart: where the schema and Validate differ, as the lists say.
func TestVerdictsApart(t *testing.T) {
	s, _ := empty(t)
	for _, w := range weaker {
		o := build(w.kind, w.edit)
		if _, err := judge(o); err == nil {
			t.Errorf("%v: Validate takes it", w.edit)
		}
		if theirs := dryRun(t, s, o); refused(t, theirs) {
			t.Errorf("%v: the schema can refuse it (%v): it belongs to the verdicts", w.edit, theirs)
		}
	}
	for _, x := range stricter {
		o := build(x.kind, x.edit)
		if _, err := judge(o); err != nil {
			t.Errorf("%v: %v", x.edit, err)
		}
		if !refused(t, dryRun(t, s, o)) {
			t.Errorf("%v: the schema takes it: it belongs to the verdicts", x.edit)
		}
	}
}

func dryRun(t *testing.T, s *Store, o object) error {
	t.Helper()
	k, _ := v1alpha1.LookupKind(o["kind"].(string))
	namespace, _ := o["metadata"].(object)["namespace"].(string)
	_, err := post(t.Context(), s, k, namespace, o, "dryRun", "All", "fieldValidation", "Strict")
	return err
}

// TestUpdateVerdicts: the API server allows the changes that ValidateUpdate does.
func TestUpdateVerdicts(t *testing.T) {
	s, _ := empty(t)
	random := rand.New(rand.NewPCG(3, 4))
	for _, k := range v1alpha1.Kinds() {
		var valid [][]edit
		for _, e := range verdicts[k.Name].edits {
			if _, err := judge(build(k.Name, e)); err == nil && !strings.HasPrefix(e.path, "metadata") {
				valid = append(valid, []edit{e})
			}
		}
		allowed, forbidden := 0, 0
		for _, from := range valid {
			was, err := judge(build(k.Name, from...))
			if err != nil {
				t.Fatal(err)
			}
			stored := clone(was)
			if err := s.Create(t.Context(), stored); err != nil {
				t.Fatalf("%v: %v", from, err)
			}
			for range 12 {
				to := valid[random.IntN(len(valid))]
				if random.IntN(2) == 0 { // one more change, and not another object
					to = append(append([]edit{}, from...), to...)
				}
				o := build(k.Name, to...)
				is, err := judge(o)
				if err != nil {
					continue
				}
				ours := is.ValidateUpdate(was)
				o["metadata"].(object)["resourceVersion"] = stored.GetResourceVersion()
				body, err := json.Marshal(o)
				if err != nil {
					t.Fatal(err)
				}
				_, theirs := answer(t.Context(), k, s.groups[k.Group].Put().NamespaceIfScoped("default", k.Namespaced).Resource(k.Plural).Name("x").
					Param("dryRun", "All").Body(body).SetHeader("Content-Type", "application/json"))
				if refused(t, theirs) != (ours != nil) {
					t.Errorf("%s from %v to %v:\n  ours %v\n  the server's %v", k.Name, from, to, ours, theirs)
				}
				if ours == nil {
					allowed++
				} else {
					forbidden++
				}
			}
			remove(t, s, k, head(k, []byte(fmt.Sprintf(`{"metadata":{"name":"x","namespace":%q}}`, stored.GetNamespace()))).key)
		}
		if allowed < 5 || forbidden < 5 && k.Name != v1alpha1.KindAddon {
			t.Errorf("%s: %d changes were allowed, %d not: that compares nothing", k.Name, allowed, forbidden)
		}
	}
}
