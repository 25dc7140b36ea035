// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/operator/room"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// of makes a cluster as it is seen.
func of(replicas int32, change func(*seen)) *seen {
	c := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}}
	c.Spec.Replicas = replicas
	c.SetDefaults()
	s := &seen{cluster: c, config: map[string]string{"initialize": "7"}, leader: map[string]string{"leader": "c-postgresql-0"}}
	s.set = &apps.StatefulSet{Spec: apps.StatefulSetSpec{Replicas: &replicas}, Status: apps.StatefulSetStatus{UpdateRevision: "new"}}
	for n := range replicas {
		s.pods = append(s.pods, podOf(int(n), "new", true))
	}
	if change != nil {
		change(s)
	}
	return s
}

func podOf(n int, revision string, serves bool) core.Pod {
	p := core.Pod{ObjectMeta: metav1.ObjectMeta{Name: specs.PodName("c", n), Labels: map[string]string{apps.ControllerRevisionHashLabelKey: revision}}}
	setMember(&p, member{State: "running", Position: 100, Timeline: 1})
	status := core.ConditionFalse
	if serves {
		status = core.ConditionTrue
	}
	p.Status.Conditions = []core.PodCondition{{Type: core.PodReady, Status: status}}
	return p
}

func setMember(p *core.Pod, m member) {
	b, _ := json.Marshal(m)
	p.Annotations = map[string]string{"status": string(b)}
}

const enlarge = `; next: kubectl -n default patch clusters.apps.kubeblocks.io c --type=merge -p '{"spec":{"storage":"40Gi"}}'`

func uses(s *seen, n int, free int64) {
	s.pods[n].Annotations[room.Annotation] = room.Use{Size: 20 << 30, Free: free}.String()
}

func old(s *seen, ns ...int) {
	for _, n := range ns {
		s.pods[n].Labels[apps.ControllerRevisionHashLabelKey] = "old"
	}
}

func away(s *seen, n int) { s.pods[n].Status.Conditions[0].Status = core.ConditionFalse }

func waits(s *seen, n int, container, reason, message string) {
	away(s, n)
	s.pods[n].Status.ContainerStatuses = []core.ContainerStatus{{Name: container, State: core.ContainerState{Waiting: &core.ContainerStateWaiting{Reason: reason, Message: message}}}}
}

// recovers: the holder of the lock has not left recovery for so long, and had the lock
// for as long, both by its own clock, which is years from this one's.
func recovers(s *seen, since, holds time.Duration) {
	now := time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC)
	s.pods[0].Annotations[names.AnnotationRecovers] = now.Add(-since).Format(time.RFC3339)
	const patroni = "2006-01-02T15:04:05.999999-07:00"
	s.leader["acquireTime"], s.leader["renewTime"] = now.Add(-holds).Format(patroni), now.Format(patroni)
}

func TestNextStep(t *testing.T) {
	for name, test := range map[string]struct {
		s    *seen
		want step
	}{
		"nothing to do":                {of(3, nil), step{}},
		"a standby, the last one":      {of(3, func(s *seen) { old(s, 0, 1, 2) }), step{end: "c-postgresql-2", why: "it is made anew"}},
		"the next one":                 {of(3, func(s *seen) { old(s, 0, 1) }), step{end: "c-postgresql-1", why: "it is made anew"}},
		"not while one is away":        {of(3, func(s *seen) { old(s, 0, 1); away(s, 2) }), step{}},
		"not while one is missing":     {of(3, func(s *seen) { old(s, 0, 1); s.pods = s.pods[:2] }), step{}},
		"one that does not serve":      {of(3, func(s *seen) { old(s, 0, 1, 2); away(s, 1) }), step{end: "c-postgresql-1", why: "it does not serve, and is made anew"}},
		"the primary hands over":       {of(3, func(s *seen) { old(s, 0); setMember(&s.pods[2], member{State: "running", Position: 200, Timeline: 1}) }), step{switchover: "c-postgresql-2", why: "the primary c-postgresql-0 is made anew"}},
		"not to another timeline":      {of(2, func(s *seen) { old(s, 0); setMember(&s.pods[1], member{State: "running", Position: 200, Timeline: 9}) }), step{}},
		"a primary that is alone ends": {of(1, func(s *seen) { old(s, 0) }), step{end: "c-postgresql-0", why: "it is made anew"}},
		"no primary, nothing ends":     {of(2, func(s *seen) { old(s, 1); s.leader = nil }), step{}},
		"a setting needs a restart":    {of(2, func(s *seen) { setMember(&s.pods[1], member{State: "running", PendingRestart: true, Timeline: 1}) }), step{end: "c-postgresql-1", why: "it is made anew"}},
		"unknown revisions are left":   {of(2, func(s *seen) { old(s, 0, 1); s.set.Generation = 2 }), step{}},
		"a primary that is to go hands over": {of(3, func(s *seen) {
			s.cluster.Spec.Replicas = 1
			s.leader["leader"] = "c-postgresql-2"
		}), step{switchover: "c-postgresql-0", why: "the primary c-postgresql-2 is made anew"}},
		"stopped": {of(1, func(s *seen) { old(s, 0); s.cluster.Spec.Stopped = true }), step{}},
		"a promotion that failed": {
			of(2, func(s *seen) { recovers(s, time.Hour, 2*time.Minute) }),
			step{end: "c-postgresql-0", why: "it holds the lock of the primary, and its server does not leave recovery"},
		},
		"a lock of which nobody says when it was renewed": {of(2, func(s *seen) {
			recovers(s, time.Hour, time.Hour)
			delete(s.leader, "renewTime")
		}), step{}},
		"a promotion under way":           {of(2, func(s *seen) { recovers(s, time.Hour, time.Minute) }), step{}},
		"a primary that recovers":         {of(2, func(s *seen) { recovers(s, time.Minute, time.Hour) }), step{}},
		"not while there is no room":      {of(2, func(s *seen) { recovers(s, time.Hour, time.Hour); uses(s, 0, 1<<20) }), step{}},
		"a standby that recovers as ever": {of(2, func(s *seen) { recovers(s, time.Hour, time.Hour); s.leader["leader"] = "c-postgresql-1" }), step{}},
	} {
		if diff := cmp.Diff(test.want, test.s.nextStep(), cmp.AllowUnexported(step{})); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}

func TestSize(t *testing.T) {
	restored := func(phase v1alpha1.RestorePhase, initialized bool) *seen {
		return of(3, func(s *seen) {
			s.cluster.Spec.Restore = &v1alpha1.RestoreSpec{SourceCluster: "old", Latest: true}
			if phase != "" {
				s.cluster.Status.Restore = &v1alpha1.RestoreStatus{Phase: phase}
			}
			if !initialized {
				s.config = nil
			}
		})
	}
	for name, test := range map[string]struct {
		s    *seen
		want int32
	}{
		"as asked":                  {of(3, nil), 3},
		"stopped":                   {of(3, func(s *seen) { s.cluster.Spec.Stopped = true }), 0},
		"a restore begins with one": {restored("", false), 1},
		"while it recovers":         {restored(v1alpha1.RestoreRecovering, false), 1},
		"recovered, not yet begun":  {restored(v1alpha1.RestoreCompleted, false), 1},
		"recovered":                 {restored(v1alpha1.RestoreCompleted, true), 3},
		"failed":                    {restored(v1alpha1.RestoreFailed, false), 0},
		"a primary that is to go":   {of(3, func(s *seen) { s.cluster.Spec.Replicas = 1; s.leader["leader"] = "c-postgresql-2" }), 3},
		"a primary that is to stay": {of(3, func(s *seen) { s.cluster.Spec.Replicas = 1 }), 1},
		"a lock that nobody holds":  {of(3, func(s *seen) { s.cluster.Spec.Replicas = 1; s.leader["leader"] = "c-postgresql-9" }), 1},
	} {
		if got := test.s.size(); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

func TestJudge(t *testing.T) {
	was := func(phase v1alpha1.ClusterPhase, f func(*seen)) func(*seen) {
		return func(s *seen) { s.cluster.Status.Phase = phase; f(s) }
	}
	for name, test := range map[string]struct {
		s    *seen
		want state
	}{
		"running":  {of(3, nil), state{v1alpha1.ClusterRunning, "", ""}},
		"creating": {of(1, func(s *seen) { s.pods, s.leader, s.config = nil, nil, nil }), state{v1alpha1.ClusterCreating, "", ""}},
		"no image": {
			of(1, func(s *seen) {
				waits(s, 0, "postgresql", "ImagePullBackOff", "Back-off pulling image \"x\"")
				s.leader = nil
			}),
			state{v1alpha1.ClusterCreating, "ImagePullBackOff", "c-postgresql-0: container postgresql: Back-off pulling image \"x\""},
		},
		"no node": {of(1, func(s *seen) {
			away(s, 0)
			s.pods[0].Status.Conditions = append(s.pods[0].Status.Conditions, core.PodCondition{Type: core.PodScheduled, Status: core.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes are available: 1 Insufficient memory."})
		}), state{v1alpha1.ClusterCreating, "Unschedulable", "c-postgresql-0: 0/1 nodes are available: 1 Insufficient memory."}},
		"a promotion failed": {of(2, was(v1alpha1.ClusterRunning, func(s *seen) { recovers(s, time.Hour, 2*time.Minute) })), state{
			v1alpha1.ClusterAbnormal, "NoPrimary",
			"no server takes writes: c-postgresql-0: it is to be the primary, and its server has not left recovery",
		}},
		"a standby is lost": {of(3, was(v1alpha1.ClusterRunning, func(s *seen) { away(s, 1) })), state{v1alpha1.ClusterAbnormal, "ServersMissing", "2 of 3 servers serve: the others have not said why"}},
		"a volume is almost full": {of(2, func(s *seen) { uses(s, 0, 19<<30); uses(s, 1, 2<<30) }), state{
			v1alpha1.ClusterRunning, "VolumeAlmostFull",
			"the volume of c-postgresql-1 is 90 % full, 2.15 GB of 21.5 GB are free" + enlarge,
		}},
		"a volume is full": {of(1, was(v1alpha1.ClusterRunning, func(s *seen) { uses(s, 0, 0); away(s, 0) })), state{
			v1alpha1.ClusterAbnormal, "VolumeFull",
			"no server takes writes: the volume of c-postgresql-0 is 100 % full, 0 B of 21.5 GB are free; PostgreSQL stops when it finds no room for its WAL" + enlarge,
		}},
		"no primary": {of(1, was(v1alpha1.ClusterRunning, func(s *seen) { s.leader = nil })), state{v1alpha1.ClusterAbnormal, "NoPrimary", "no server takes writes: Patroni has not chosen one yet"}},
		"scaling":    {of(3, was(v1alpha1.ClusterRunning, func(s *seen) { s.pods = s.pods[:2] })), state{v1alpha1.ClusterUpdating, "Scaling", "there are 2 servers of 3"}},
		"stopping":   {of(1, func(s *seen) { s.cluster.Spec.Stopped = true }), state{v1alpha1.ClusterStopping, "", ""}},
		"stopped":    {of(1, func(s *seen) { s.cluster.Spec.Stopped, s.pods = true, nil }), state{v1alpha1.ClusterStopped, "", ""}},
		"starting":   {of(1, was(v1alpha1.ClusterStopped, func(s *seen) { away(s, 0) })), state{v1alpha1.ClusterStarting, "", ""}},
		"updating":   {of(2, was(v1alpha1.ClusterRunning, func(s *seen) { old(s, 0) })), state{v1alpha1.ClusterUpdating, "", ""}},
		"restarting": {of(2, was(v1alpha1.ClusterRunning, func(s *seen) { old(s, 0); s.cluster.Annotations = map[string]string{v1alpha1.AnnotationRestart: "now"} })), state{v1alpha1.ClusterRestarting, "", ""}},
		"restoring":  {of(1, func(s *seen) { s.cluster.Spec.Restore = &v1alpha1.RestoreSpec{} }), state{v1alpha1.ClusterRestoring, "", ""}},
		"the target was outside": {of(1, func(s *seen) {
			s.cluster.Spec.Restore = &v1alpha1.RestoreSpec{}
			s.cluster.Status.Reason = "OutsideWindow"
			s.cluster.Status.Restore = &v1alpha1.RestoreStatus{Phase: v1alpha1.RestoreFailed, Message: "the target is outside"}
		}), state{v1alpha1.ClusterFailed, "OutsideWindow", "the target is outside"}},
	} {
		if diff := cmp.Diff(test.want, test.s.judge(), cmp.AllowUnexported(state{})); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}
