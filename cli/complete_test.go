// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// TestComplete types tab after each line; a line that ends in a space begins a new word.
func TestComplete(t *testing.T) {
	b := newBench(t)
	b.cluster("my-pg", nil)
	b.cluster("other", nil)
	b.backup("b1", "my-pg", v1alpha1.BackupStatus{Phase: v1alpha1.BackupCompleted})
	b.backup("b2", "my-pg", v1alpha1.BackupStatus{Phase: v1alpha1.BackupCompleted})
	b.backup("o1", "other", v1alpha1.BackupStatus{Phase: v1alpha1.BackupCompleted})
	elsewhere := &v1alpha1.Backup{Spec: v1alpha1.BackupSpec{ClusterRef: "far", BackupType: v1alpha1.BackupDatafile}}
	elsewhere.Namespace, elsewhere.Name = "prod", "p1"
	b.create(elsewhere)
	repo := &v1alpha1.BackupRepo{}
	repo.Name, repo.Spec.StorageProvider, repo.Spec.Filesystem = "nas", v1alpha1.ProviderFilesystem, &v1alpha1.FilesystemRepo{Path: "/srv"}
	b.create(repo)

	for _, c := range []struct{ line, want string }{
		{"cluster list-ev", "list-events"},
		{"cluster describe ", "my-pg other"},
		{"cluster describe m", "my-pg"},
		{"cluster describe my-pg ", ""},
		{"cluster describe -n prod ", ""},
		{"cluster delete my-pg ", "other"},
		{"cluster restart ", "my-pg other"},
		{"cluster logs o", "other"},
		{"cluster list-instances ", "my-pg other"},
		{"cluster list-events my-pg ", "other"},
		{"cluster list-backup --name ", "b1 b2 o1"},
		{"cluster list-backup my-pg --name ", "b1 b2"},
		{"cluster delete-backup other --name ", "o1"},
		{"cluster delete-backup my-pg --name b1,", "b1,b2"},
		{"cluster describe-backup ", "b1 b2 o1"},
		{"cluster verify-backup b", "b1 b2"},
		{"cluster create x --backup ", "b1 b2 o1"},
		{"cluster restore x --backup ", "b1 b2 o1"},
		{"cluster restore x --source-cluster my-pg --backup ", "b1 b2"},
		{"cluster restore x --source-cluster ", "my-pg other"},
		{"cluster restore x --restore-to-time e", "earliest"},
		{"cluster backup ", "my-pg other"},
		{"cluster backup my-pg --policy ", "my-pg-postgresql-backup-policy"},
		{"cluster backup my-pg --type ", "snapshot datafile incremental"},
		{"cluster edit-bp m", "my-pg-postgresql-backup-policy"},
		{"cluster edit-bp p --set schedule.logfile.", "schedule.logfile.enable= schedule.logfile.cronExpression="},
		{"cluster edit-bp p --set schedule.logfile.enable=", "schedule.logfile.enable=true schedule.logfile.enable=false"},
		{"cluster edit-bp p --set retention.ttl=7d,schedule.datafile.en", "retention.ttl=7d,schedule.datafile.enable="},
		{"cluster list-bp --name ", "my-pg-postgresql-backup-policy other-postgresql-backup-policy"},
		{"cluster create x --set st", "storage= storageClass="},
		{"cluster create x --set storage=1Gi,c", "storage=1Gi,cpu="},
		{"cluster create x --termination-policy ", "Delete DoNotTerminate Halt WipeOut"},
		{"cluster create x --cluster-definition ", "postgresql"},
		{"cluster create x --cluster-version postgresql-1", "postgresql-13 postgresql-14 postgresql-15 postgresql-16 postgresql-17 postgresql-18"},
		{"cluster grant-role my-pg -u x --role ", "SUPERUSER READWRITE READONLY"},
		{"cluster list -n ", "default prod"},
		{"cluster list -n p", "prod"},
		{"cluster list -o ", "json yaml wide name"},
		{"cluster describe my-pg -o ", "json yaml wide name"},
		{"cluster list --context ", "local"},
		{"context use ", "local"},
		{"backuprepo describe ", "nas"},
		{"backuprepo create x --provider ", "filesystem pvc s3"},
		{"addon enable ", "csi-s3 snapshot-controller"},
		{"addon enable csi-s3 --set secret.", "secret.accessKey= secret.secretKey= secret.endpoint= secret.region="},
		{"kubeblocks install --set snap", "snapshot-controller.enabled="},
		{"kubeblocks config --set snapshot-controller.enabled=t", "snapshot-controller.enabled=true"},
	} {
		args := strings.Split(c.line, " ")
		out, _, code := b.run(append([]string{"__complete"}, args...)...)
		var got []string
		for line := range strings.Lines(out) {
			if word, _, _ := strings.Cut(strings.TrimSpace(line), "\t"); word != "" && word[0] != ':' && strings.HasPrefix(word, args[len(args)-1]) {
				got = append(got, strings.Fields(word)[0]) // a shell looks at the beginnings itself
			}
		}
		if diff := cmp.Diff(strings.Fields(c.want), got); diff != "" && len(got)+len(strings.Fields(c.want)) > 0 || code != 0 {
			t.Errorf("%s: code %d, -want +got:\n%s", c.line, code, diff)
		}
	}
	if b.ready != 0 {
		t.Error("a tab started an agent")
	}
}
