// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/engine/pg/client"
)

// slot is the name of the replication slot, and of the connection in sync mode.
func (p *Protector) slot() string { return SlotName(p.cfg.Namespace, p.cfg.Cluster) }

// SlotName is the name of a cluster's replication slot, and of the connection that
// archives: lower-case letters, digits and underscores.
func SlotName(namespace, cluster string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(namespace+"_"+cluster))
	return ("kbcli_" + name)[:min(63, len(name)+6)]
}

// OtherStandbysError says that commits wait for somebody else already.
type OtherStandbysError struct{ Names string }

func (e *OtherStandbysError) Error() string {
	return fmt.Sprintf("synchronous_standby_names is %q already: sync mode would take its place, and is not in effect", e.Names)
}

// followSync sets synchronous_standby_names once the Archiver streams, and takes it
// back when the mode is async, so that commits wait for the repository only while
// somebody brings them there. What somebody else set there stays, and then sync mode
// is an *OtherStandbysError.
func (p *Protector) followSync(ctx context.Context, mode v1alpha1.ArchiveMode) error {
	want := ""
	if mode == v1alpha1.ArchiveSync {
		if p.arch.Status().State != archive.Streaming {
			return nil
		}
		want = p.slot()
	}
	if p.last.syncKnown && p.last.sync == want {
		return nil
	}
	c, err := client.Connect(ctx, p.cfg.Conninfo)
	if err != nil {
		return err
	}
	defer c.Close()
	have, err := c.Setting(ctx, "synchronous_standby_names")
	if err != nil {
		return err
	}
	if want != "" && have != "" && have != want {
		return &OtherStandbysError{have}
	}
	if have != want && (want != "" || have == p.slot()) {
		sql := "ALTER SYSTEM RESET synchronous_standby_names"
		if want != "" {
			sql = "ALTER SYSTEM SET synchronous_standby_names = '" + want + "'" // letters, digits and _ only
		}
		for _, sql := range []string{sql, "SELECT pg_reload_conf()"} {
			if _, err := c.SQL().Exec(ctx, sql); err != nil {
				return fmt.Errorf("change synchronous_standby_names: %w", err)
			}
		}
		p.tellSync(want != "")
	}
	p.last.syncKnown, p.last.sync = true, want
	return nil
}

// dropSlot removes the slot when WAL is no longer archived, so that the server does
// not keep WAL for nobody.
func (p *Protector) dropSlot(ctx context.Context) error {
	c, err := client.Connect(ctx, p.cfg.Conninfo)
	if err != nil {
		return err
	}
	defer c.Close()
	for range 20 {
		err = c.DropSlot(ctx, p.slot())
		if !errors.Is(err, client.ErrSlotActive) {
			break
		}
		select { // the server has not noticed yet that the connection ended
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	if errors.Is(err, client.ErrSlotNotFound) {
		return nil
	}
	return err
}
