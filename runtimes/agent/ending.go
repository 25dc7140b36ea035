// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Why a Protector is ended although its cluster is looked after: whoever ends it, to begin
// another, gives one of these as the cause of its context. Without one nobody looks after
// the cluster any more, as where the agent's process ends.
var (
	ErrServerAway = errors.New("the server does not answer")
	ErrStandby    = errors.New("the server is a standby now")
)

// reportEnd says that the Protector ends, and with it archiving.
func (p *Protector) reportEnd(ctx context.Context) {
	cause := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := p.putEnd(ctx, cause); err != nil {
		p.cfg.Log.Warn("the cluster's status could not be written", "error", err)
	}
}

// putEnd leaves what is known as it is, but that nobody archives.
func (p *Protector) putEnd(ctx context.Context, cause error) error {
	now := p.cfg.Clock()
	if err := p.remember(ctx, now); apierrors.IsNotFound(err) {
		return nil
	} else if err != nil {
		return err
	}
	names := p.names(ctx)
	wanted := p.policy != nil && p.policy.Spec.Schedule.Logfile.Enable
	state, archiving := judgeEnd(cause, wanted, names)
	c, err := store.MutateStatus(ctx, p.cfg.Objects, p.cfg.Namespace, p.cfg.Cluster, func(c *v1alpha1.Cluster) error {
		s := &c.Status
		if s.Archive == nil {
			return nil
		}
		s.Archive.State = state
		setCondition(s, v1alpha1.ConditionArchiving, archiving, c.Generation, now)
		setCondition(s, v1alpha1.ConditionRecoverable, judgeRecoverable(s, p.last.leftOnly, archiving, names), c.Generation, now)
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		p.tellArchive(p.last.told.Archive, c.Status.Archive)
	}
	return err
}

// judgeEnd is what a Protector that ends says of the archive: what holds until another begins.
func judgeEnd(cause error, wanted bool, n checkup.Names) (v1alpha1.ArchiveState, verdict) {
	away, standby := errors.Is(cause, ErrServerAway), errors.Is(cause, ErrStandby)
	switch {
	case (away || standby) && !wanted:
		return v1alpha1.ArchiveStopped, judgeArchiving(&v1alpha1.ArchiveStatus{State: v1alpha1.ArchiveStopped}, wanted, trouble{}, n)
	case away:
		return v1alpha1.ArchiveConnecting, no("ServerUnreachable", then("PostgreSQL does not answer: it is down, or starting; its WAL is archived again when it serves",
			fmt.Sprintf("kbcli cluster logs %s -n %s", n.Cluster, n.Namespace)))
	case standby:
		return v1alpha1.ArchiveConnecting, unsure("Handover", "the server that was archived is a standby now; whichever is the primary is archived from there")
	}
	return v1alpha1.ArchiveStopped, no("AgentEnded", "nobody looks after this cluster now")
}
