// SPDX-License-Identifier: Apache-2.0

package checkup

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/repository"
)

// Names are what next steps call things.
type Names struct {
	Namespace, Cluster string
	Policy             string // the cluster's default BackupPolicy
	Repository         string // the BackupRepo
	// Revive starts an agent, and Grow makes room on the disk of the server; empty is how
	// that is done on one machine.
	Revive, Grow string
}

func (n Names) revive() string {
	if n.Revive != "" {
		return n.Revive
	}
	return agentNext
}

func (n Names) grow() string {
	if n.Grow != "" {
		return n.Grow
	}
	return "df -h"
}

func (n Names) doctor() string { return fmt.Sprintf("kbcli doctor %s -n %s", n.Cluster, n.Namespace) }

func (n Names) describe() string {
	return fmt.Sprintf("kbcli cluster describe %s -n %s", n.Cluster, n.Namespace)
}

func (n Names) backup() string {
	return fmt.Sprintf("kbcli cluster backup %s -n %s", n.Cluster, n.Namespace)
}

func (n Names) logs() string {
	return fmt.Sprintf("kbcli cluster logs %s -n %s", n.Cluster, n.Namespace)
}

func (n Names) set(what string) string {
	return fmt.Sprintf("kbcli cluster edit-backup-policy %s -n %s --set %s", n.Policy, n.Namespace, what)
}

func (n Names) repo() string {
	if n.Repository == "" {
		return "kbcli backuprepo list"
	}
	return "kbcli backuprepo describe " + n.Repository
}

func (n Names) credentials() string {
	return fmt.Sprintf("kbcli backuprepo update %s --credentials-file FILE", n.Repository)
}

// Explain puts what holds archiving or a repository up into one CamelCase word, and
// says what to do about it. The words stay the error's own.
func Explain(err error, n Names) (reason, next string) {
	for _, e := range explained {
		if e.is(err) {
			return e.reason, e.next(n)
		}
	}
	return "ArchivingFailed", n.doctor()
}

type explanation struct {
	is     func(error) bool
	reason string
	next   func(Names) string
}

func value(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func kind[T error](err error) bool {
	var e T
	return errors.As(err, &e)
}

func sqlstate(classes ...string) func(error) bool {
	return func(err error) bool {
		var e *pgconn.PgError
		if !errors.As(err, &e) {
			return false
		}
		for _, c := range classes {
			if len(e.Code) >= len(c) && e.Code[:len(c)] == c {
				return true
			}
		}
		return false
	}
}

// explained is the table of Explain: the first that fits counts. What the operating
// system denies comes before what a store denies, which wraps it.
var explained = []explanation{
	{value(repository.ErrSealed), "WrongKey", func(n Names) string {
		return fmt.Sprintf("kbcli backuprepo update %s --identity-file FILE", n.Repository)
	}},
	{value(repository.ErrNoRepository), "NoRepository", Names.repo},
	{kind[*repository.LockedError], "RepositoryLocked", Names.repo},
	{value(repository.ErrLockLost), "RepositoryLockLost", Names.repo},
	{kind[*repository.MismatchError], "AnotherServer", Names.describe},
	{kind[*repository.ConflictError], "RepositoryConflict", Names.describe},
	{kind[*repository.CorruptError], "RepositoryDamaged", func(n Names) string {
		return fmt.Sprintf("kbcli cluster list-backup %s -n %s", n.Cluster, n.Namespace)
	}},
	{kind[*archive.DivergedError], "ServerRewound", Names.describe},
	{value(fs.ErrPermission), "StorageDenied", Names.repo},
	{value(blob.ErrDenied), "StorageDenied", Names.credentials},
	{value(blob.ErrNoBucket), "StorageMissing", Names.repo},
	{value(blob.ErrOverwrites), "StorageUnfit", Names.repo},
	{value(blob.ErrNoSpace), "StorageFull", Names.repo},
	{value(archive.ErrSlow), "StorageSlow", Names.repo},
	{value(blob.ErrUnreachable), "StorageUnreachable", Names.repo},
	{value(syscall.ENOSPC), "DiskFull", Names.grow},
	{sqlstate("28"), "ServerDenied", Names.describe},
	{sqlstate("57P03", "57P01", "57P02"), "ServerStarting", Names.logs},
	{sqlstate("53"), "ServerFull", Names.logs},
	{sqlstate("55006"), "SlotInUse", Names.doctor},
	{kind[*pgconn.ConnectError], "ServerUnreachable", Names.logs},
	{kind[*pgconn.PgError], "ServerRefused", Names.logs},
}
