// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

const cancelled = "Edit cancelled, no changes made.\n"

func TestUsage(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct{ line, words string }{
		{"cluster backup", "error: missing cluster name\nnext: kbcli cluster backup --help\n"},
		{"cluster bakcup", "error: unknown command \"bakcup\" for \"kbcli cluster\"\nhint: did you mean \"backup\"?\nnext: kbcli cluster --help\n"},
		{"clutser", "error: unknown command \"clutser\" for \"kbcli\"\nhint: did you mean \"cluster\"?\nnext: kbcli --help\n"},
		{"cluster list --outptu json", "error: unknown flag: --outptu\nhint: did you mean --output?\nnext: kbcli cluster list --help\n"},
		{"cluster list -o xml", "error: there is no output \"xml\": there are json, yaml, wide, name\n"},
		{"cluster restore new", "error: must be specified one of the --backup or --restore-to-time\nnext: kbcli cluster restore --help\n"},
		{"cluster restore new --restore-to-time now", "error: --source-cluster must be specified if specified --restore-to-time\nnext: kbcli cluster list\n"},
		{"cluster restore new --latest", "error: --source-cluster must be specified if specified --latest\nnext: kbcli cluster list\n"},
		{"cluster restore new --latest --backup b", "error: --latest and --backup are two targets: give one\n"},
		{"cluster restore new --restore-to-xid 2 --source-cluster c", "error: \"2\" is not a transaction identifier, a number from 3\nhint: within a transaction: select pg_current_xact_id()\n"},
		{"cluster restore new --restore-to-lsn 3000028 --source-cluster c", "error: \"3000028\" is not a position in the WAL such as 0/3000028\nhint: on a running server: select pg_current_wal_insert_lsn()\n"},
		{"cluster restore new --restore-to-xid 7 --restore-to-name x --source-cluster c", "error: --restore-to-xid and --restore-to-name are two targets: give one\n"},
		{"cluster restore new --restore-to-name x --exclusive --source-cluster c", "error: --exclusive is only for --restore-to-time, --restore-to-lsn and --restore-to-xid\n"},
		{"cluster restore new --backup b --timeline 2", "error: --timeline is not for --backup, which has its own\n"},
		{"cluster restore new --latest --source-cluster c --set storage=much", "error: storage: \"much\" is not a quantity such as 20Gi or 500m\n"},
		{"cluster restore new --latest --source-cluster c --set class=fast", "error: unknown key \"class\"\nhint: there are: replicas, storage, storageClass, cpu, memory\n"},
		{"cluster delete-backup my-pg", "error: Missing --name as backup name.\nnext: kbcli cluster list-backup my-pg -n default\n"},
		{"cluster create Bad_Name", "error: Cluster.apps.kubeblocks.io \"Bad_Name\" is invalid: metadata.name: \"Bad_Name\" is not a name of lower-case letters, digits and '-' that starts with a letter and ends with a letter or digit\nhint: a name that would do: \"bad-name\"\n"},
		{"cluster create c --set stroage=1Gi", "error: unknown key \"stroage\"\nhint: did you mean \"storage\"?\n"},
		{"cluster grant-role c -u x --role admin", "error: there is no role \"admin\": there are SUPERUSER, READWRITE and READONLY\n"},
		{"cluster create-account c", "error: missing --username\nhint: such as --username myuser\n"},
		{"kubeblocks config --set dataProtection.enableVolumSnapshot=true", "error: unknown key \"dataProtection.enableVolumSnapshot\"\nhint: did you mean \"dataProtection.enableVolumeSnapshot\"?\n"},
		{"addon enable csi-s3 --set secret.acessKey=x", "error: unknown key \"secret.acessKey\"\nhint: did you mean \"secret.accessKey\"?\n"},
	} {
		b.want("", c.words, exitUsage, strings.Fields(c.line)...)
	}
	if b.ready != 0 {
		t.Error("an agent was started for words that cannot be")
	}
}

func TestMissing(t *testing.T) {
	b := newBench(t)
	notFound := "Error from server (NotFound): clusters.apps.kubeblocks.io \"x\" not found\n"
	for _, line := range []string{"cluster describe x", "cluster delete x", "cluster connect x", "cluster stop x", "cluster list x"} {
		b.want("", notFound, exitNotFound, strings.Fields(line)...)
	}
	b.want("", "error: not found any backup policy for cluster \"x\"\nhint: there is no cluster \"x\" in namespace default\n", exitNotFound, "cluster", "backup", "x")
	b.want("", "No backups found in default namespace.\n", 0, "cluster", "list-backup")
	b.want("", "No clusters found in ns namespace.\n", 0, "cluster", "list", "-n", "ns")
	b.want("", "No clusters found.\n", 0, "cluster", "list", "-A")
	b.want("apiVersion: v1\nkind: List\nitems: []\n", "", 0, "cluster", "ls-backups", "-o", "yaml")
	b.err = &runtimes.SourceNotFoundError{}
	b.want("", "error: source cluster: x not found\nnext: kbcli cluster list-backup -A\n", exitNotFound,
		"cluster", "restore", "new", "--source-cluster", "x", "--restore-to-time", "now")
}

func TestCreate(t *testing.T) {
	b := newBench(t)
	b.want("Cluster my-pg created\n", "", 0, "cluster", "create", "my-pg", "--set", "cpu=2,memory=4Gi", "--cluster-version", "postgresql-15")
	b.want("", "Error from server (AlreadyExists): clusters.apps.kubeblocks.io \"my-pg\" already exists\n", exitConflict, "cluster", "create", "my-pg")
	c, err := store.Get[*v1alpha1.Cluster](t.Context(), b.objects, "default", "my-pg")
	if err != nil || c.Spec.Resources.CPU.String() != "2" || c.Spec.Resources.Memory.String() != "4Gi" {
		t.Errorf("%v, %v", c, err)
	}
	b.want(`NAME                             DEFAULT   CLUSTER   CREATE-TIME                  STATUS
my-pg-postgresql-backup-policy   true      my-pg     Apr 17,2023 19:59 UTC+0800   <none>
`, "", 0, "cluster", "list-backup-policies")
	b.want("cluster.apps.kubeblocks.io/my-pg\n", "", 0, "cluster", "list", "-o", "name")
}

func TestDescribe(t *testing.T) {
	b := newBench(t)
	b.cluster("my-pg", func(s *v1alpha1.ClusterStatus) {
		s.Windows = []v1alpha1.RecoverableWindow{
			{Timeline: 1, From: micro("2023-04-17T11:55:48Z"), To: micro("2023-04-17T11:57:01Z"), FromLSN: "0/2", ToLSN: "0/3", Backup: "b"},
			{Timeline: 1, From: micro("2023-04-17T11:58:00.5Z"), To: micro("2023-04-17T11:59:00.5Z"), FromLSN: "0/4", ToLSN: "0/5", Backup: "c"},
		}
	})
	out, _, _ := b.run("cluster", "describe", "my-pg")
	golden(t, "describe.txt", out)
}

func TestBackup(t *testing.T) {
	b := newBench(t)
	b.cluster("my-pg", nil)
	name := "backup-default-my-pg-20230417115940"
	said := "Backup " + name + " created successfully, you can view the progress:\n\tkbcli cluster list-backup --name=" + name + " -n default\n"
	b.want(said, "note: the type of the backup is datafile: the file system makes no clones\n", 0, "cluster", "backup", "my-pg")
	b.want("", "error: backup \""+name+"\" is not completed.\nnext: kbcli cluster list-backup --name="+name+" -n default\n", exitConflict,
		"cluster", "restore", "new", "--backup", name)
	b.want("NAME                                  CLUSTER   TYPE       STATUS   TOTAL-SIZE   DURATION   CREATE-TIME                  COMPLETION-TIME   EXPIRATION\n"+
		name+"   my-pg     datafile   New      <none>       <none>     Apr 17,2023 19:59 UTC+0800   <none>            <none>\n", "", 0,
		"cluster", "list-backup", "--name="+name, "-n", "default")
	for _, phase := range []v1alpha1.BackupPhase{v1alpha1.BackupCompleted, v1alpha1.BackupFailed} {
		b.act = func(ctx context.Context) {
			for ctx.Err() == nil {
				_, err := store.MutateStatus(ctx, b.objects, "default", "b-"+strings.ToLower(string(phase)), func(o *v1alpha1.Backup) error {
					o.Status.Phase, o.Status.FailureReason = phase, "the disk is full"
					return nil
				})
				if err == nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		}
		b.ready = 0
		_, errs, code := b.run("cluster", "backup", "my-pg", "--wait", "--backup-type", "datafile", "--name", "b-"+strings.ToLower(string(phase)))
		want, words := 0, ""
		if phase == v1alpha1.BackupFailed {
			want, words = 1, "error: backup \"b-failed\" failed: the disk is full\nnext: kbcli cluster describe-backup b-failed -n default\n"
		}
		if code != want || errs != words {
			t.Errorf("%s: code %d, %q", phase, code, errs)
		}
	}
}

func TestDelete(t *testing.T) {
	b := newBench(t)
	b.cluster("my-pg", nil)
	b.cluster("other", nil)
	fate := "Cluster my-pg will be deleted with all its data; its backups stay.\n"
	const ask = "Please type the name again(separate with white space when more than one): "
	b.want("", fate+"error: nobody is there to confirm this: stdin is not a terminal\nhint: give --auto-approve to do it unasked\n", exitUsage, "cluster", "delete", "my-pg")
	b.typed = "my-gp\n"
	b.want("", fate+ask+"error: typed \"my-gp\" does not match \"my-pg\"\n", exitUsage, "cluster", "delete", "my-pg")
	b.typed = " my-pg \n"
	b.want("Cluster my-pg deleted\n", fate+ask, 0, "cluster", "delete", "my-pg")
	b.typed = ""
	if _, err := store.Mutate(t.Context(), b.objects, "default", "other", func(c *v1alpha1.Cluster) error {
		c.Spec.TerminationPolicy = v1alpha1.TerminationDoNotTerminate
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b.want("", "error: cluster \"other\" is protected by its termination policy DoNotTerminate\n", exitConflict, "cluster", "delete", "other", "--yes")
}

func TestDeleteBackup(t *testing.T) {
	b := newBench(t)
	done := v1alpha1.BackupStatus{Phase: v1alpha1.BackupCompleted, StopLSN: "0/2000100", TotalSize: 312_000_000}
	b.cluster("my-pg", func(s *v1alpha1.ClusterStatus) {
		s.Windows = []v1alpha1.RecoverableWindow{{From: micro("2023-04-17T11:55:48Z"), To: micro("2023-04-17T11:57:01Z"), FromLSN: "0/2000100", ToLSN: "0/3000000", Backup: "b1"}}
	})
	b.backup("b1", "my-pg", done)
	b.backup("gone-1", "gone", done)
	b.want("", "error: backup \"b1\" is of cluster \"my-pg\", not of \"gone\"\n", exitUsage, "cluster", "delete-backup", "gone", "--name", "b1")
	b.want("", "error: backup \"b1\" is the last from which my-pg can be restored: with it the moments Apr 17,2023 19:55:48 UTC+0800 ~ Apr 17,2023 19:57:01 UTC+0800 are lost\n"+
		"hint: take another backup first, or give --force\n", exitConflict, "cluster", "delete-backup", "my-pg", "--name", "b1", "--auto-approve")
	b.want("Backup gone-1 deleted\n", "", 0, "cluster", "delete-backup", "gone", "--backup-name", "gone-1", "--yes")
	b.want("", "No backups found in default namespace.\n", 0, "cluster", "delete-backup", "gone", "--force")
	b.want("Backup b1 deleted\n", "", 0, "cluster", "delete-backup", "my-pg", "--force", "--yes")
}

func TestRestore(t *testing.T) {
	b := newBench(t)
	b.cluster("my-pg", nil)
	b.plan = pagePlan()
	b.windows = []catalog.Window{b.plan.Window}
	said := (&preview{plan: b.plan, name: "new-cluster", namespace: "default", source: runtimes.Source{Namespace: "default", Cluster: "my-pg"}, now: pageNow, zone: shanghai, windows: 1}).summary()
	line := []string{"cluster", "restore", "new-cluster", "--source-cluster", "my-pg", "--restore-to-time"}

	b.want("", said, 0, append(line, "Apr 17,2023 19:56:40 UTC+0800", "--dry-run")...)
	out, _, _ := b.run(append(line, "Apr 17,2023 19:56:40 UTC+0800", "--dry-run", "-o", "json")...)
	golden(t, "plan.json", out)
	if b.ready != 0 {
		t.Error("--dry-run started an agent")
	}

	b.want("", "error: time \"2023-04-17 19:56:40\" has no zone\nhint: say which zone: \"Apr 17,2023 19:56:40 UTC+0800\" or \"2023-04-17T11:56:40Z\"\n",
		exitUsage, append(line, "2023-04-17 19:56:40")...)
	b.typed = "yes\n"
	b.want("", "\"2023-04-17 19:56:40\" has no zone. On this machine's clock it is 2023-04-17 19:56:40 +08:00, which is 2023-04-17 11:56:40 +00:00.\nIs that the moment? (yes/no): "+said,
		0, append(line, "2023-04-17 19:56:40", "--dry-run")...)
	if want := clock("2023-04-17T11:56:40Z"); !b.target.Time.Equal(want) {
		t.Errorf("target is %v", b.target)
	}
	b.typed = ""

	b.want("Cluster new-cluster created\n", said+"note: it is being restored; kbcli cluster describe new-cluster -n default shows how far it is\n", 0,
		append(line, "3 minutes ago")...)
	c, err := store.Get[*v1alpha1.Cluster](t.Context(), b.objects, "default", "new-cluster")
	if err != nil {
		t.Fatal(err)
	}
	at := micro("2023-04-17T11:56:40Z")
	want := &v1alpha1.RestoreSpec{
		SourceCluster: "my-pg", SourceNamespace: "default", SourceLineage: "my-pg-0123456789ab", Time: &at,
		Resolved: &v1alpha1.ResolvedTarget{Timeline: 1, StopLSN: "0/3000028", EndLSN: "0/3000028", BackupName: "backup-default-my-pg-20230417195547"},
	}
	if diff := cmp.Diff(want, c.Spec.Restore); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	b.shaped()

	b.plan, b.err = nil, &catalog.OutsideWindowError{Windows: b.windows}
	b.want("", "error: restore-to-time is out of time range, you can view the recoverable time: \n\tkbcli cluster describe my-pg -n default\n"+
		"hint: the recoverable time is Apr 17,2023 19:55:48 UTC+0800 ~ Apr 17,2023 19:57:01 UTC+0800\n", exitOutside,
		"cluster", "restore", "third", "--source-cluster", "my-pg", "--restore-to-time", "2020-01-01T00:00:00Z")
}

func TestEdit(t *testing.T) {
	b := newBench(t)
	b.cluster("my-pg", nil)
	const name = "my-pg-postgresql-backup-policy"
	line := []string{"cluster", "edit-bp", name}
	swap := func(old, new string) func(string) error {
		return func(path string) error {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, []byte(strings.Replace(string(text), old, new, 1)), 0o600)
		}
	}
	edited := "backuppolicy.dataprotection.kubeblocks.io/" + name + " edited\n"
	b.editor = swap("", "# only a comment\n")
	b.want(cancelled, "", 0, line...)
	b.editor = swap("    logfile:\n      enable: false", "    logfile:\n      enable: true")
	b.want(edited, "", 0, line...)
	b.want(cancelled, "", 0, append(line, "--set", "schedule.logfile.enable=true")...)
	b.want(edited, "", 0, append(line, "--set", "schedule.datafile.cronExpression=0 6,18 * * *,retention.ttl=168h")...)
	b.want("", "error: unknown field \"spec.schedule.logfil\" (did you mean \"logfile\"?)\n", exitUsage, append(line, "--set", "schedule.logfil.enable=true")...)
	b.want("", "error: spec.schedule.logfile.enable: \"yes\" is not true or false\n", exitUsage, append(line, "--set", "schedule.logfile.enable=yes")...)

	// A rejected edit opens again with the reason, and is taken once it is mended.
	var opened []string
	b.editor = func(path string) error {
		text, err := os.ReadFile(path)
		opened = append(opened, string(text))
		if err != nil {
			return err
		}
		if len(opened) == 1 {
			return swap("ttl: 168h", "ttl: 7w")(path)
		}
		return swap("ttl: 7w", "ttl: 9d")(path)
	}
	b.want(edited, "", 0, line...)
	if len(opened) != 2 || !strings.Contains(opened[1], "# spec.retention.ttl: \"7w\" is not a number of days or hours such as 7d or 168h\n") || !strings.Contains(opened[1], "ttl: 7w") {
		t.Errorf("the editor was shown %q", opened)
	}
	b.editor = swap("ttl: 9d", "ttl: 7w")
	_, errs, code := b.run(line...)
	before, path, _ := strings.Cut(strings.TrimSpace(errs), "\nhint: the text is in ")
	if code != exitUsage || before != `error: the edit was not taken: spec.retention.ttl: "7w" is not a number of days or hours such as 7d or 168h` {
		t.Errorf("code %d, %q", code, errs)
	}
	if err := os.Remove(path); err != nil || filepath.Ext(path) != ".yaml" {
		t.Error(err)
	}
}

func TestConnect(t *testing.T) {
	b := newBench(t)
	b.cluster("my-pg", nil)
	b.typed, b.password = "x", "secret"
	b.want("", "password:", 0, "cluster", "connect", "my-pg", "--as-user", "myuser", "--", "-c", "select 1")
	want := runtimes.Command{Path: "psql", Args: []string{"-U", "myuser", "-d", "postgres", "-c", "select 1"}, Env: []string{"PGPASSWORD=secret"}}
	if diff := cmp.Diff(want, b.launched); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	b.typed = ""
	b.want("", "", 0, "cluster", "connect", "my-pg", "--as-user", "myuser")
	if b.launched.Env != nil {
		t.Errorf("without a terminal psql has %v", b.launched.Env)
	}
	b.want("psql 'postgresql://myuser@127.0.0.1:5432/postgres'\n", "", 0, "cluster", "connect", "my-pg", "--as-user", "myuser", "--show-example")
}

func TestAddons(t *testing.T) {
	b := newBench(t)
	b.want(`NAME                  TYPE   STATUS     EXTRAS   AUTO-INSTALL   AUTO-INSTALLABLE-SELECTOR
csi-s3                Helm   Disabled            false
snapshot-controller   Helm   Disabled            true
`, "", 0, "addon", "list")
	b.want("addon.extensions.kubeblocks.io/snapshot-controller enabled\n", "", 0, "addon", "enable", "snapshot-controller")
	b.want("addon.extensions.kubeblocks.io/snapshot-controller enabled (no change)\n", "", 0, "addon", "enable", "snapshot-controller")
	b.act = func(ctx context.Context) {
		for ctx.Err() == nil {
			_, err := store.MutateStatus(ctx, b.objects, "", "csi-s3", func(r *v1alpha1.BackupRepo) error {
				r.Status.Phase, r.Status.ObservedGeneration = v1alpha1.RepoReady, r.Generation
				return nil
			})
			if err == nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	b.ready = 0
	b.want("addon.extensions.kubeblocks.io/csi-s3 enabled\n", "", 0, "addon", "enable", "csi-s3", "--set",
		"secret.accessKey=AK,secret.secretKey=S/K+,secret.endpoint=https://s3.cn-northwest-1.amazonaws.com.cn,secret.region=cn-northwest-1,storageClass.singleBucket=demo")
	r, err := store.Get[*v1alpha1.BackupRepo](t.Context(), b.objects, "", "csi-s3")
	if err != nil {
		t.Fatal(err)
	}
	want := &v1alpha1.S3Repo{Endpoint: "https://s3.cn-northwest-1.amazonaws.com.cn", Region: "cn-northwest-1", Bucket: "demo", CredentialsFile: "/state/secrets/csi-s3"}
	if diff := cmp.Diff(want, r.Spec.S3); diff != "" || !r.Spec.Default {
		t.Errorf("default %v\n-want +got:\n%s", r.Spec.Default, diff)
	}
	if diff := cmp.Diff(map[string]string{"csi-s3": `{"accessKey":"AK","secretKey":"S/K+"}`}, b.secrets); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	all, _, _ := b.run("addon", "describe", "csi-s3", "-o", "yaml")
	if strings.Contains(all, "S/K+") || strings.Contains(all, "AK") {
		t.Errorf("a secret is in the object:\n%s", all)
	}
}

func TestKubeBlocks(t *testing.T) {
	b := newBench(t)
	b.want("KubeBlocks devel installed to namespace kb-system SUCCESSFULLY!\n", "", 0, "kubeblocks", "install", "--set", "snapshot-controller.enabled=true")
	b.want("Nothing to upgrade, --set, --version should be specified.\n", "", 0, "kubeblocks", "config")
	out, _, code := b.run("kubeblocks", "config", "--set", "dataProtection.backupPVCName=backup-data", "--set", "dataProtection.backupPVCStorageClassName=csi-s3")
	if code != 0 || !strings.HasSuffix(out, " OK\nKubeBlocks has been upgraded  SUCCESSFULLY!\n") {
		t.Errorf("code %d, %q", code, out)
	}
	out, _, _ = b.run("kubeblocks", "describe-config")
	golden(t, "config.txt", out)
}

// shaped: what is restored into another namespace has its source's shape, and of it what
// --set says instead.
func (b *bench) shaped() {
	b.t.Helper()
	b.run("cluster", "restore", "look", "-n", "staging", "--source-namespace", "default", "--source-cluster", "my-pg", "--restore-to-time", "3 minutes ago",
		"--set", "storage=70Gi,cpu=2")
	c, err := store.Get[*v1alpha1.Cluster](b.t.Context(), b.objects, "staging", "look")
	if err != nil {
		b.t.Fatal(err)
	}
	src, err := store.Get[*v1alpha1.Cluster](b.t.Context(), b.objects, "default", "my-pg")
	if err != nil {
		b.t.Fatal(err)
	}
	want := src.Spec
	want.Storage = resource.MustParse("70Gi")
	cpu := resource.MustParse("2")
	want.Resources.CPU = &cpu
	got := c.Spec
	if got.Restore == nil || got.Restore.SourceNamespace != "default" || got.Restore.SourceCluster != "my-pg" {
		b.t.Errorf("it is restored from %+v", got.Restore)
	}
	got.Restore, got.Local, want.Local = nil, nil, nil
	want.ClusterVersionRef = got.ClusterVersionRef
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("-want +got:\n%s", diff)
	}
}
