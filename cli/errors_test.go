// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/bounds"
	"github.com/kbcli/kbcli/internal/humantime"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes"
	"github.com/kbcli/kbcli/runtimes/repos"
	"github.com/kbcli/kbcli/runtimes/store"
	"github.com/kbcli/kbcli/runtimes/store/kube"
)

// TestErrors renders every row of the table at least once.
func TestErrors(t *testing.T) {
	cluster := v1alpha1.KindFor[*v1alpha1.Cluster]()
	day := func(n int) time.Time { return time.Date(2023, 4, n, 11, 55, 48, 123_000_000, time.UTC) }
	window := func(n int) catalog.Window { return catalog.Window{From: day(n), To: day(n).Add(73 * time.Second)} }
	target := catalog.Target{Time: day(1)}
	of := func(err error) error {
		return &restoreError{source: runtimes.Source{Namespace: "default", Cluster: "my-pg"}, name: "new-cluster", namespace: "default", err: err, show: func(w catalog.Window) string {
			return (&app{zone: shanghai}).span(w.From, w.To)
		}}
	}
	parse := func(s string) error {
		paris, err := time.LoadLocation("Europe/Paris")
		if err != nil {
			t.Fatal(err)
		}
		_, err = humantime.Parse(s, humantime.Env{Local: paris})
		return of(err)
	}
	_, refused := pgconn.Connect(t.Context(), "host=/nonexistent user=postgres")
	policy := &v1alpha1.BackupPolicy{}
	policy.Namespace, policy.Name = "default", "p"
	policy.Spec.ClusterRef, policy.Spec.Retention.TTL = "my-pg", "7w"

	cases := []struct {
		row string
		err error
	}{
		{"Interrupted", Interrupted{syscall.SIGINT}},
		{"Interrupted", fmt.Errorf("wait: %w", Interrupted{syscall.SIGTERM})},
		{"Left", &leftError{cause: Interrupted{syscall.SIGINT}, next: "kbcli cluster describe my-pg -n default"}},
		{"problem", usage("missing cluster name").then("kbcli cluster backup --help")},
		{"problem", missing("not found any backup policy for cluster %q", "x")},
		{"OutsideWindow", of(&catalog.OutsideWindowError{Target: target, Windows: []catalog.Window{window(17)}})},
		{"OutsideWindow", of(&catalog.OutsideWindowError{Target: target, Windows: []catalog.Window{window(17), window(18)}})},
		{"OutsideWindow", of(&catalog.OutsideWindowError{Target: target})},
		{"OutsideWindow", &catalog.OutsideWindowError{Target: target}},
		{"Gap", of(&catalog.GapError{Target: target, Before: window(17), After: window(18), Gap: &repository.Gap{Reason: "the spool was full"}})},
		{"NoZone", parse("2023-04-17 19:56:40")},
		{"Skipped", parse("2023-03-26 02:30:00 Europe/Paris")},
		{"Ambiguous", parse("2023-10-29 02:30:00 Europe/Paris")},
		{"TimeSyntax", parse("04/05/2023")},
		{"NoClock", parse("10 minutes ago")},
		{"SourceNotFound", of(&runtimes.SourceNotFoundError{Source: runtimes.Source{Cluster: "x"}})},
		{"Absent", fmt.Errorf("plan: %w", &repository.AbsentError{
			Backup: "b", Snapshot: repository.Snapshot{Machine: "db1", Path: "/srv/snapshots/my-pg-0123456789ab/b"}, Err: syscall.ENOENT,
		})},
		{"Absent", fmt.Errorf("plan: %w", &repository.AbsentError{
			Backup: "b", Snapshot: repository.Snapshot{VolumeSnapshot: "shop/b"}, Err: errors.New("there is no such VolumeSnapshot in this Kubernetes"),
		})},
		{"NoBackup", of(&catalog.NoBackupError{Name: "b"})},
		{"OutsideWindow", of(&catalog.OutsideWindowError{Target: target, Windows: []catalog.Window{window(17)}, Elsewhere: []catalog.Window{{Timeline: 3, From: day(1), To: day(2)}}})},
		{"OutsideWindow", of(&catalog.OutsideWindowError{Target: target, Windows: []catalog.Window{window(17)}, ClockSetBack: true})},
		{"Gap", of(&catalog.GapError{Target: catalog.Target{LSN: 0x3000028}, Before: window(17), After: window(18)})},
		{"Position", of(&catalog.PositionError{LSN: 0x1000000, After: 0x2000188, Backup: "b", Consistent: 0x2000110, End: 0x3000000})},
		{"Position", of(&catalog.PositionError{LSN: 0x4000000, Before: 0x2fffff0, End: 0x3000000})},
		{"Transaction", of(&catalog.TransactionError{XID: 752, State: catalog.XactSub, Parent: 751, LSN: 0x2000188})},
		{"Transaction", of(&catalog.TransactionError{XID: 752, State: catalog.XactPrepared, GID: "g 1", LSN: 0x2000188})},
		{"Transaction", of(&catalog.TransactionError{XID: 752, State: catalog.XactPrepared})},
		{"Transaction", of(&catalog.TransactionError{XID: 752, State: catalog.XactRunning, LSN: 0x3000000})},
		{"Transaction", of(&catalog.TransactionError{XID: 752, State: catalog.XactUnfinished})},
		{"Transaction", of(&catalog.TransactionError{XID: 752, State: catalog.XactEarlier})},
		{"Transaction", of(&catalog.TransactionError{XID: 752, State: catalog.XactInBackup, LSN: 0x2000010})},
		{"Transaction", of(&catalog.TransactionError{XID: 752, State: catalog.XactUnknown, Next: 750})},
		{"NoRestorePoint", of(&catalog.NoRestorePointError{Name: "x", Known: []string{"before-upgrade", "y"}})},
		{"NoRestorePoint", of(&catalog.NoRestorePointError{Name: "x", At: day(16)})},
		{"NoRestorePoint", of(&catalog.NoRestorePointError{Name: "x"})},
		{"NotReached", &restore.NotReachedError{Planned: 0x2000000, Reached: 0x2000000, Other: "transaction 752 is committed"}},
		{"MissingWAL", of(&repository.MissingWALError{Timeline: 1, From: 0x1000000, To: 0x2000000})},
		{"NoTimeline", of(&catalog.NoTimelineError{Timeline: 7})},
		{"MinimalWAL", of(&restore.MinimalWALError{LSN: 0x1000028})},
		{"TablespaceMade", of(&restore.TablespaceMadeError{LSN: 0x1000028, Path: "/ts"})},
		{"NotReached", &restore.NotReachedError{Planned: 0x2000000, Reached: 0x1000000}},
		{"NoSuperuser", &restore.NoSuperuserError{}},
		{"NoRoom", &restore.NoRoomError{Dir: "/var/lib/kubeblocks", Need: 2000, Free: 1000}},
		{"NotReusable", &restore.NotReusableError{Dir: "/srv/pg", Reason: "its system identifier is 1, and that of the backup 2: it is another server's"}},
		{"NotReusable", &restore.NotReusableError{Dir: "/srv/pg", Reason: "process 4711 runs in it: a server, or who looks at it", Running: true}},
		{"Memory", fmt.Errorf("restore: %w", &bounds.MemoryError{Limit: 8 << 20, Least: 65 << 20})},
		{"NoFit", &runtimes.NoFitError{Reason: "storage 400Mi is too small: the restore needs 612Mi", Set: "storage=612Mi"}},
		{"NotEmpty", &restore.NotEmptyError{Dir: "/var/lib/kubeblocks/clusters/default/my-pg/data"}},
		{"LogElsewhere", &runtimes.LogElsewhereError{Whose: "cluster my-pg", Command: "journalctl -u postgresql@15-main.service"}},
		{"LogElsewhere", &runtimes.LogElsewhereError{Whose: "the agent"}},
		{"NoRepository", fmt.Errorf("%w in %s", repository.ErrNoRepository, "/srv/backups")},
		{"Locked", &repository.LockedError{Name: "retention", Holder: "db1 4711", Renewed: day(17)}},
		{"LockLost", repository.ErrLockLost},
		{"Sealed", repository.ErrSealed},
		{"Corrupt", &repository.CorruptError{Key: "lineages/a/lineage", Reason: "checksum"}},
		{"Mismatch", &repository.MismatchError{Lineage: repository.LineageInfo{ID: "my-pg-1"}, Field: "system identifier", Have: "1", Got: "2"}},
		{"StoredConflict", &repository.ConflictError{Key: "wal/1"}},
		{"StorageDenied", fmt.Errorf("put a: %w", blob.ErrDenied)},
		{"NoBucket", fmt.Errorf("s3://demo: %w", blob.ErrNoBucket)},
		{"StorageUnreachable", fmt.Errorf("get a: %w", blob.ErrUnreachable)},
		{"NoSpace", fmt.Errorf("put a: %w", blob.ErrNoSpace)},
		{"DiskFull", fmt.Errorf("write clusters/default/x: %w", syscall.ENOSPC)},
		{"Connect", refused},
		{"SQL", &pgconn.PgError{Code: "42710", Message: `role "myuser" already exists`}},
		{"SQL", &pgconn.PgError{Code: "2BP01", Message: "cannot be dropped", Detail: "owner of table msg", Hint: "Use CASCADE."}},
		{"NotFound", fmt.Errorf("wrapped: %w", store.NotFound(cluster, "x"))},
		{"AlreadyExists", store.AlreadyExists(cluster, "x")},
		{"Conflict", store.Stale(cluster, "x")},
		{"Invalid", store.Admit(policy, nil)},
		{"Invalid", store.Admit(&v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "My PG"}}, nil)},
		{"Broken", store.BrokenObjects{{Place: "/var/lib/kubeblocks/objects/clusters/default/my-pg.yaml", Line: 9, Err: &v1alpha1.SyntaxError{Line: 9, Reason: `the text ends before its last line, "..."`}}}},
		{"Broken", &store.BrokenObject{Place: "/var/lib/kubeblocks/objects/clusters/default/my-pg.yaml", Err: syscall.EACCES}},
		{"Broken", &store.BrokenObject{Key: store.Key{Kind: "Cluster", Namespace: "default", Name: "my-pg"}, Place: "clusters.apps.kubeblocks.io/my-pg in namespace default", Err: v1alpha1.FieldErrors{{Type: v1alpha1.ErrorUnknown, Path: "spec.future"}}}},
		{"NotInstalled", fmt.Errorf("list: %w", &kube.NotInstalledError{Kind: cluster})},
		{"Operator", &kubernetes.OperatorError{}},
		{"Operator", &kubernetes.OperatorError{Namespace: "kb-system", Reason: "it was scaled to 0"}},
		{"Operator", &kubernetes.OperatorError{Namespace: "kb-system", Reason: `pod kubeblocks-5c7f-x2: ImagePullBackOff: Back-off pulling image "kbcli:1"`, TimedOut: true}},
		{"InstalledElsewhere", &kubernetes.InstalledElsewhereError{Namespace: "kb-system", Asked: "backups"}},
		{"Settings", &kubernetes.SettingsError{Reason: "'/replicas': got string, want integer"}},
		{"NoPrimary", fmt.Errorf("connect to cluster my-pg: %w", &kubernetes.NoPrimaryError{Namespace: "default", Cluster: "my-pg", Pods: 3})},
		{"NoPsql", &kubernetes.NoPsqlError{Namespace: "default", Cluster: "my-pg"}},
		{"NotAllowed", &kubernetes.NotAllowedError{Namespace: "shop", Err: apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "my-pg-postgresql-0", errors.New(`User "ann" cannot create resource "pods/exec" in API group "" in the namespace "shop"`))}},
		{"Nobody", &kubernetes.NobodyError{Source: runtimes.Source{Cluster: "my-pg"}}},
		{"Nobody", &kubernetes.NobodyError{Unseen: true}},
		{"Older", &kubernetes.OlderError{Pod: "shop/my-pg-postgresql-0", Release: "0.9", Topic: "history"}},
		{"Lost", &kubernetes.LostError{Pod: "shop/my-pg-postgresql-0", Err: errors.New("command terminated with exit code 137")}},
		{"NotGiven", &repos.NotGivenError{Repository: "nas"}},
		{"NoKubernetes", kube.Unreachable(errors.New(`Get "https://10.0.0.1:6443/api": dial tcp 10.0.0.1:6443: connect: connection refused`))},
		{"Unauthorized", apierrors.NewUnauthorized("Unauthorized")},
		{"Forbidden", apierrors.NewForbidden(cluster.GroupVersionResource().GroupResource(), "x", errors.New("User \"ann\" cannot get it"))},
		{"SQL", &pgconn.PgError{Code: "42939", Message: `role name "public" is reserved`}},
		{"Permission", fmt.Errorf("start the agent: %w", syscall.EACCES)},
		{"Deadline", fmt.Errorf("wait: %w", context.DeadlineExceeded)},
		{"", errors.New("something else")},
	}
	var got bytes.Buffer
	seen := map[string]bool{"": true}
	for _, c := range cases {
		for _, r := range rows {
			if _, ok := r.of(c.err); ok {
				if r.name != c.row {
					t.Errorf("%v is taken for %s, not %s", c.err, r.name, c.row)
				}
				break
			}
		}
		seen[c.row] = true
		s := explain(c.err)
		fmt.Fprintf(&got, "-- %s: %d --\n", c.row, s.code)
		s.write(&got)
	}
	for _, r := range rows {
		if !seen[r.name] {
			t.Errorf("row %s has no case", r.name)
		}
	}
	golden(t, "errors.txt", got.String())
}

func TestGoodName(t *testing.T) {
	for typed, want := range map[string]string{
		"a/b": "a-b", "My-Pg": "my-pg", "..": "my-pg", "": "my-pg", "日本": "my-pg", "naïve": "na-ve", "9pg": "pg-9pg", "-x-": "x",
		strings.Repeat("a", 200): strings.Repeat("a", 40), strings.Repeat("a", 39) + "-b": strings.Repeat("a", 39),
	} {
		if got := goodName(typed); got != want {
			t.Errorf("%q: %q, want %q", typed, got, want)
		}
		c := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: goodName(typed)}}
		if err := store.Admit(c, nil); err != nil {
			t.Errorf("%q: %v", typed, err)
		}
	}
}
