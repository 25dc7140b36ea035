// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"reflect"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/store"
)

// lastStatus is what was reported last.
type lastStatus struct {
	archive   *v1alpha1.ArchiveStatus
	windows   []v1alpha1.RecoverableWindow
	gaps      int
	timeline  pg.TimelineID
	syncKnown bool
	sync      string
}

// report writes how things stand into the Cluster's status, if that changed.
func (p *Protector) report(ctx context.Context, trouble error) {
	a, windows, err := p.look(ctx)
	if err != nil {
		if ctx.Err() == nil {
			p.cfg.Log.Warn("what can be reached is not known", "error", err)
		}
		if trouble == nil {
			trouble = err
		}
		windows = p.last.windows
	}
	if trouble != nil && a.LastError == "" {
		a.LastError, a.LastErrorTime = trouble.Error(), metav1.NewTime(p.cfg.Clock())
		if p.last.archive != nil && p.last.archive.LastError == a.LastError {
			a.LastErrorTime = p.last.archive.LastErrorTime
		}
	}
	if p.last.archive != nil && reflect.DeepEqual(*p.last.archive, *a) && reflect.DeepEqual(p.last.windows, windows) {
		return
	}
	_, err = store.MutateStatus(ctx, p.cfg.Objects, p.cfg.Namespace, p.cfg.Cluster, func(c *v1alpha1.Cluster) error {
		c.Status.Archive, c.Status.Windows = a, windows
		return nil
	})
	if err != nil {
		if ctx.Err() == nil {
			p.cfg.Log.Warn("the cluster's status could not be written", "error", err)
		}
		return
	}
	p.last.archive, p.last.windows = a, windows
}

// look asks the Archiver and the catalog.
func (p *Protector) look(ctx context.Context) (*v1alpha1.ArchiveStatus, []v1alpha1.RecoverableWindow, error) {
	out := &v1alpha1.ArchiveStatus{State: v1alpha1.ArchiveStopped}
	var st archive.Status
	if p.arch != nil {
		st = p.arch.Status()
		out = archiveStatus(st)
	}
	if p.lineage == nil {
		return out, nil, nil
	}
	if len(st.Gaps) != p.last.gaps || st.RepositoryTimeline != p.last.timeline && st.RepositoryTimeline != 0 {
		if err := p.reload(ctx); err != nil {
			return out, nil, err
		}
		p.last.gaps, p.last.timeline = len(st.Gaps), st.RepositoryTimeline
	}
	p.mu.Lock()
	cat := p.cat
	p.mu.Unlock()
	if st.Repository != 0 {
		cat.Grow(st.RepositoryTimeline, st.Repository, st.Proven)
	}
	ws, err := cat.Windows(ctx, 0)
	if err != nil {
		return out, nil, err
	}
	gaps := cat.Gaps()
	out.Gaps = gapsOf(gaps)
	if n := len(gaps); n > 0 && (len(ws) == 0 || ws[len(ws)-1].ToLSN <= gaps[n-1].From) && out.State == v1alpha1.ArchiveStreaming {
		out.State = v1alpha1.ArchiveGap // until a backup begins a new window
	}
	return out, WindowsOf(ws), nil
}

func archiveStatus(st archive.Status) *v1alpha1.ArchiveStatus {
	out := &v1alpha1.ArchiveStatus{
		Timeline: int64(st.Timeline), ReceivedLSN: st.Received.String(), SpooledLSN: st.Spooled.String(),
		RepositoryLSN: st.Repository.String(), SpoolBytes: st.SpoolBytes,
		LagBytes: max(0, int64(st.ServerLSN)-int64(st.Repository)),
	}
	switch st.State {
	case archive.Streaming:
		out.State = v1alpha1.ArchiveStreaming
	case archive.Blocked:
		out.State = v1alpha1.ArchiveBlocked
	case archive.Stopped:
		out.State = v1alpha1.ArchiveStopped
	default:
		out.State = v1alpha1.ArchiveConnecting
	}
	if !st.Proven.IsZero() {
		out.ProvenTime = v1alpha1.MicroTimeOf(st.Proven)
	}
	if st.LastError != nil {
		out.LastError, out.LastErrorTime = st.LastError.Error(), metav1.NewTime(st.ErrorTime.Truncate(time.Second))
	}
	return out
}

func gapsOf(gaps []repository.Gap) []v1alpha1.Gap {
	var out []v1alpha1.Gap
	for _, g := range gaps {
		out = append(out, v1alpha1.Gap{
			Timeline: int64(g.Timeline), From: g.From.String(), To: g.To.String(),
			Reason: g.Reason, Time: v1alpha1.MicroTimeOf(g.Detected),
		})
	}
	return out
}

// WindowsOf puts windows into the words of the objects.
func WindowsOf(ws []catalog.Window) []v1alpha1.RecoverableWindow {
	var out []v1alpha1.RecoverableWindow
	for _, w := range ws {
		out = append(out, v1alpha1.RecoverableWindow{
			Timeline: int64(w.Timeline), From: v1alpha1.MicroTimeOf(w.From), To: v1alpha1.MicroTimeOf(w.To),
			FromLSN: w.FromLSN.String(), ToLSN: w.ToLSN.String(), Backup: w.Backup,
		})
	}
	return out
}
