// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/runtimes"
)

// looked is a runtime that was examined already, whose agent ended.
type looked struct {
	*fakeRuntime
	found []runtimes.Examined
	seen  time.Time // of the agent; zero: it runs
}

func (l *looked) Examine(context.Context, string, []string) ([]runtimes.Examined, error) {
	return l.found, nil
}

func (l *looked) Attended(context.Context) (bool, time.Time, error) {
	return l.seen.IsZero(), l.seen, nil
}

func (l *looked) run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	a := newApp(Stdio{In: strings.NewReader(""), Out: &out, Err: &errs})
	a.env = func(string) string { return "" }
	a.clock, a.zone = func() time.Time { return pageNow }, shanghai
	a.interactive = func() bool { return false }
	a.open = func(context.Context, *app) (runtimes.Runtime, error) { return l, nil }
	code = a.run(t.Context(), args)
	return out.String(), errs.String(), code
}

func TestDoctor(t *testing.T) {
	good := checkup.Finding{Check: "agent-running", Level: checkup.Pass, Evidence: "process 1"}
	soso := checkup.Finding{Check: "agent-at-boot", Level: checkup.Warn, Evidence: "nobody\nstarts it", Next: "one\ntwo"}
	bad := checkup.Finding{Check: "archive-gap", Level: checkup.Fail, Evidence: "WAL is missing", Next: "kbcli cluster backup my-pg"}
	for _, c := range []struct {
		name           string
		found          []runtimes.Examined
		args           []string
		stdout, stderr string
		code           int
	}{
		{"well", []runtimes.Examined{{Subject: "agent", Findings: []checkup.Finding{good}}}, nil, "1 check passed, 0 warnings, 0 failures\n", "", 0},
		{
			"all of it",
			[]runtimes.Examined{{Subject: "agent", Findings: []checkup.Finding{good}}},
			[]string{"--all"},
			"agent\n  PASS   agent-running   process 1\n\n1 check passed, 0 warnings, 0 failures\n", "", 0,
		},
		{
			"soso",
			[]runtimes.Examined{{Subject: "agent", Findings: []checkup.Finding{good, soso}}},
			nil,
			"agent\n  WARN   agent-at-boot   nobody starts it\n         next: one\n         next: two\n\n1 check passed, 1 warning, 0 failures\n", "", exitWarned,
		},
		{
			"bad",
			[]runtimes.Examined{{Subject: "agent", Findings: []checkup.Finding{good, soso}}, {Subject: "cluster default/my-pg", Findings: []checkup.Finding{good, bad}}},
			[]string{"my-pg"},
			"agent\n  WARN   agent-at-boot   nobody starts it\n         next: one\n         next: two\n\n" +
				"cluster default/my-pg\n  FAIL   archive-gap   WAL is missing\n         next: kbcli cluster backup my-pg\n\n2 checks passed, 1 warning, 1 failure\n",
			"error: 1 check failed\n", exitFailed,
		},
		{
			"JSON",
			[]runtimes.Examined{{Subject: "agent", Findings: []checkup.Finding{soso}}},
			[]string{"-o", "json"},
			`{
    "level": "warn",
    "subjects": [
        {
            "subject": "agent",
            "findings": [
                {
                    "check": "agent-at-boot",
                    "level": "warn",
                    "evidence": "nobody\nstarts it",
                    "next": "one\ntwo"
                }
            ]
        }
    ]
}
`, "", exitWarned,
		},
	} {
		l := &looked{fakeRuntime: newBench(t).fakeRuntime, found: c.found}
		out, errs, code := l.run(t, append([]string{"doctor"}, c.args...)...)
		if diff := cmp.Diff([]string{c.stdout, c.stderr}, []string{out, errs}); diff != "" || code != c.code {
			t.Errorf("%s: code %d, want %d (-want +got):\n%s", c.name, code, c.code, diff)
		}
	}
	b := newBench(t)
	out, _, code := b.run("doctor", "--list")
	if !strings.HasPrefix(out, "CHECK ") || !strings.Contains(out, "repository-same-disk ") || code != 0 {
		t.Errorf("code %d:\n%s", code, out)
	}
	b.want("", "error: there is no output \"wide\": there are json, yaml\n", exitUsage, "doctor", "-o", "wide")
}

func archived(s *v1alpha1.ClusterStatus) {
	since := metav1.NewTime(clock("2023-04-17T11:50:00Z"))
	s.Archive = &v1alpha1.ArchiveStatus{
		State: v1alpha1.ArchiveStreaming, Timeline: 1, RepositoryLSN: "0/5000000", LagBytes: 16777216, LagSeconds: 90, SpoolBytes: 33554432,
		LastError: "put a tail: storage denied access: AccessDenied (HTTP 403)", LastErrorTime: since,
		Gaps: []v1alpha1.Gap{{Timeline: 1, From: "0/2000000", To: "0/3000000", Reason: "the slot was lost", Time: micro("2023-04-17T11:57:30Z")}},
	}
	s.Branches = []v1alpha1.RecoverableWindow{{Timeline: 3, From: micro("2023-04-16T10:00:00Z"), To: micro("2023-04-16T11:00:00.5Z")}}
	s.LastBackup, s.LastBackupTime = "b", since
	s.Conditions = []metav1.Condition{
		{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "Running", Message: "the server takes connections", LastTransitionTime: since},
		{Type: v1alpha1.ConditionArchiving, Status: metav1.ConditionFalse, Reason: "StorageDenied", Message: "AccessDenied; next: kbcli x", LastTransitionTime: since},
	}
}

func TestDescribeArchive(t *testing.T) {
	b := newBench(t)
	b.cluster("my-pg", archived)
	l := &looked{fakeRuntime: b.fakeRuntime}
	out, _, _ := l.run(t, "cluster", "describe", "my-pg")
	golden(t, "describe_archive.txt", out)
}

// TestUnattended has an agent that ended: nothing is claimed of the present.
func TestUnattended(t *testing.T) {
	b := newBench(t)
	b.cluster("my-pg", archived)
	b.cluster("fresh", func(s *v1alpha1.ClusterStatus) { *s = v1alpha1.ClusterStatus{} })
	l := &looked{fakeRuntime: b.fakeRuntime, seen: clock("2023-04-17T11:59:00Z")}
	out, _, _ := l.run(t, "cluster", "describe", "my-pg")
	golden(t, "describe_unattended.txt", out)
	out, _, _ = l.run(t, "cluster", "describe", "my-pg", "-o", "json")
	for _, lie := range []string{"Streaming", `"True"`, `"phase": "Running"`} {
		if strings.Contains(out, lie) {
			t.Errorf("%s is claimed:\n%s", lie, out)
		}
	}
	out, _, _ = l.run(t, "cluster", "list")
	if !strings.Contains(out, "Unknown") || strings.Contains(out, "Running") || !strings.Contains(out, "Creating") {
		t.Errorf("list:\n%s", out)
	}
}
