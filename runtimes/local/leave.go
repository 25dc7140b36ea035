// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/runtimes"
)

// leaveTime bounds one try to leave a server.
const leaveTime = time.Minute

// reasonNotLeft is why a cluster that is deleted is still there.
const reasonNotLeft = "ServerNotLeft"

// leave takes what is kbcli's away from a server that stays. Until that is done the
// cluster is there, and says what it waits for.
func (k *keeper) leave(ctx context.Context, c *v1alpha1.Cluster) error {
	info, err := attachedConninfo(c, "")
	if err != nil {
		return err
	}
	if k.protect == nil {
		k.startProtector(ctx, info, c.Spec.Local.DataDirectory)
	}
	if !forced(c) {
		if a := c.Status.Archive; a != nil && a.LastError != "" && c.Status.Reason != reasonNotLeft {
			// who waits is told now, and not when the time is up
			err := k.phase(ctx, v1alpha1.ClusterDeleting, reasonNotLeft, "the repository has not taken all WAL yet: "+a.LastError)
			if err != nil {
				return err
			}
		}
		err := k.leaveInOrder(ctx)
		if err == nil {
			k.unprotect()
			return nil
		}
		if c, gerr := k.get(ctx); gerr != nil || !forced(c) {
			return errors.Join(err, gerr, k.phase(ctx, v1alpha1.ClusterDeleting, reasonNotLeft, checkup.Words(err)))
		}
	}
	lctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := k.protector.Leave(lctx, true); err != nil {
		if ctx.Err() != nil {
			return err
		}
		k.r.log.Warn("the server was left although not all could be done", "cluster", k.namespace+"/"+k.name, "error", err)
	}
	k.unprotect()
	return nil
}

func forced(c *v1alpha1.Cluster) bool { return c.Annotations[runtimes.AnnotationLeave] == "force" }

// leaveInOrder waits for the repository, for a while or until somebody wants to wait no
// longer.
func (k *keeper) leaveInOrder(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			if c, err := k.get(ctx); err == nil && forced(c) {
				cancel()
			}
		}
	}()
	err := k.protector.Leave(ctx, false)
	cancel()
	<-looked
	return err
}
