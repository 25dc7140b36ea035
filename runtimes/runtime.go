// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Runtime is a place where clusters live.
type Runtime interface {
	// Store keeps the objects that say what is wanted.
	Store() store.Store

	// Ready makes sure that somebody acts upon objects: on one machine it
	// starts the agent if none runs.
	Ready(ctx context.Context) error

	// Admin connects to a running cluster as its superuser.
	Admin(ctx context.Context, c *v1alpha1.Cluster, database string) (*pgx.Conn, error)

	// Psql is the command that connects a person. It holds no password.
	Psql(ctx context.Context, c *v1alpha1.Cluster, user, database string) (Command, error)

	// Plan says what a restore would do, and changes nothing. If the target is
	// a moment that the source has only just reached it waits for it, briefly.
	Plan(ctx context.Context, src Source, t catalog.Target) (*restore.Plan, error)

	// Clock is the source's present: that of its server, or of its archive if
	// it no longer runs.
	Clock(ctx context.Context, src Source) (time.Time, error)

	// Windows lists what can be reached of a cluster, the newest timeline's.
	Windows(ctx context.Context, src Source) ([]catalog.Window, error)

	// BackupType is what a backup of the cluster is unless somebody asks
	// otherwise, and why.
	BackupType(ctx context.Context, c *v1alpha1.Cluster) (v1alpha1.BackupType, string)
}

// Source is a cluster, perhaps deleted, whose past is asked for.
type Source struct {
	Namespace, Cluster string
	Lineage            string // of several under one name; empty is the newest
}

// Command is a program to run.
type Command struct {
	Path string
	Args []string // without the program's own name
	Env  []string // added to the environment

	// Release is called once the program has ended; this process has to live until then,
	// because the way to the server leads through it. Nil: the program can take its place.
	Release func()
}

// SourceNotFoundError says that nothing is known of a cluster: no object and no
// lineage in any repository.
type SourceNotFoundError struct{ Source Source }

func (e *SourceNotFoundError) Error() string {
	if e.Source.Lineage != "" {
		return "source cluster: " + e.Source.Cluster + " has no lineage " + e.Source.Lineage
	}
	return "source cluster: " + e.Source.Cluster + " not found"
}
