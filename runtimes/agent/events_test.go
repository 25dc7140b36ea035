// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
)

func TestArchiveEvents(t *testing.T) {
	status := func(state v1alpha1.ArchiveState, timeline int64, lastError string, gaps ...v1alpha1.Gap) *v1alpha1.ArchiveStatus {
		return &v1alpha1.ArchiveStatus{State: state, Timeline: timeline, LastError: lastError, Gaps: gaps}
	}
	gap := v1alpha1.Gap{Timeline: 1, From: "0/1", To: "0/2", Reason: "the spool was full"}
	const streaming, connecting, stopped, blocked, gapped = v1alpha1.ArchiveStreaming, v1alpha1.ArchiveConnecting, v1alpha1.ArchiveStopped, v1alpha1.ArchiveBlocked, v1alpha1.ArchiveGap
	for _, c := range []struct {
		name    string
		was, is *v1alpha1.ArchiveStatus
		want    []string
	}{
		{"nothing", nil, nil, nil},
		{"never archived", nil, status(stopped, 0, ""), nil},
		{"begins", nil, status(streaming, 1, ""), []string{"ArchivingStarted"}},
		{"on the way", status(stopped, 0, ""), status(connecting, 0, ""), nil},
		{"connected", status(connecting, 1, ""), status(streaming, 1, ""), []string{"ArchivingStarted"}},
		{"goes on under another agent", status(streaming, 1, ""), status(streaming, 1, ""), nil},
		{"ends", status(streaming, 1, ""), status(stopped, 1, ""), []string{"ArchivingStopped"}},
		{"full", status(streaming, 1, "x"), status(blocked, 1, "x"), []string{"ArchivingBlocked"}},
		{"room again", status(blocked, 1, "x"), status(streaming, 1, ""), []string{"ArchivingResumed", "ArchivingRecovered"}},
		{"fails", status(streaming, 1, ""), status(streaming, 1, "put: no"), []string{"ArchivingFailed"}},
		{"fails still", status(streaming, 1, "put: no"), status(streaming, 1, "put: no"), nil},
		{"fails otherwise", status(streaming, 1, "put: no"), status(streaming, 1, "get: no"), []string{"ArchivingFailed"}},
		{"works again", status(streaming, 1, "put: no"), status(streaming, 1, ""), []string{"ArchivingRecovered"}},
		{"promoted", status(streaming, 1, ""), status(streaming, 2, ""), []string{"TimelineSwitched"}},
		{"gap", status(streaming, 1, ""), status(gapped, 1, "", gap), []string{"GapDeclared"}},
		{"gap that is known", status(gapped, 1, "", gap), status(streaming, 1, "", gap), nil},
	} {
		var got []string
		for _, o := range archiveEvents(c.was, c.is) {
			got = append(got, o.reason)
			if warning := o.kind == runtimes.EventWarning; warning != (o.reason == "ArchivingBlocked" || o.reason == "ArchivingFailed" || o.reason == "GapDeclared") || o.message == "" {
				t.Errorf("%s: %+v", c.name, o)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.name, diff)
		}
	}
}

func TestTell(t *testing.T) {
	var got []string
	p := New(Config{Cluster: "my-pg", Event: func(object string, kind runtimes.EventType, reason, message string) {
		got = append(got, object+" "+string(kind)+" "+reason+": "+message)
	}})
	began := time.Date(2023, 4, 17, 18, 0, 0, 0, time.UTC)
	b := &v1alpha1.Backup{Spec: v1alpha1.BackupSpec{BackupType: v1alpha1.BackupDatafile}}
	b.Name = "b1"
	b.Status = v1alpha1.BackupStatus{Phase: v1alpha1.BackupInProgress, Repo: "local", StartTimestamp: metav1.NewTime(began)}
	p.tellBackup(b)
	b.Status.Phase, b.Status.TotalSize, b.Status.CompletionTimestamp = v1alpha1.BackupCompleted, 312_000_000, metav1.NewTime(began.Add(90*time.Second))
	p.tellBackup(b)
	b.Status.Phase, b.Status.FailureReason = v1alpha1.BackupFailed, "the disk is full: 100%"
	p.tellBackup(b)
	policy := &v1alpha1.BackupPolicy{}
	policy.Name = "p"
	p.tellSchedule(policy, v1alpha1.BackupDatafile, began, began.Add(time.Second))
	p.tellSchedule(policy, v1alpha1.BackupDatafile, began, began.Add(3*time.Hour))
	p.tellSync(true)
	p.tellSync(false)
	want := []string{
		"Backup/b1 Normal BackupStarted: a backup of type datafile is taken into repository local",
		"Backup/b1 Normal BackupCompleted: it takes 312 MB in the repository, and took 1m30s",
		"Backup/b1 Warning BackupFailed: the disk is full: 100%",
		"BackupPolicy/p Normal ScheduleDue: the datafile backup of 2023-04-17T18:00:00Z is due",
		"BackupPolicy/p Warning ScheduleMissed: the datafile backup of 2023-04-17T18:00:00Z was missed: one is taken now, 3h0m0s later",
		"Cluster/my-pg Normal SyncOn: commits wait until the repository holds their WAL",
		"Cluster/my-pg Normal SyncOff: commits no longer wait for the repository",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	New(Config{}).tellSync(true) // nobody listens
}
