// SPDX-License-Identifier: Apache-2.0

package checkup

import (
	"errors"
	"time"

	"github.com/kbcli/kbcli/engine/repository"
)

// Repository is what is known of a BackupRepo.
type Repository struct {
	Names
	Place string        // a path or a URL
	Err   error         // it could not be opened and listed
	Took  time.Duration // to open and list it
	Used  bool          // by some cluster's policy

	// Directory says that it lies in one, with ReadOnly why nothing can be written to
	// it, and Free and Total bytes on its file system.
	Directory   bool
	ReadOnly    error
	Free, Total int64

	LastBackup int64 // bytes that the last backup took
	WALPerDay  int64 // bytes that its clusters write a day; 0 when not known
	// SameDisk are the clusters whose data lie on the file system of the repository.
	SameDisk []string

	Sealed, Identity bool  // Identity: one was given to read with
	KeyErr           error // that does not open it

	Locks   []repository.LockedError
	LockErr error
	Now     time.Time
}

// Findings are repository-reachable, repository-space, repository-key, repository-lock
// and repository-same-disk; the first alone where it cannot be reached.
func (r *Repository) Findings() []Finding {
	out := []Finding{r.reachable()}
	if r.Err == nil {
		out = append(out, r.key(), r.lock())
	}
	if r.Directory {
		if r.Err == nil {
			out = append(out, r.space())
		}
		out = append(out, r.sameDisk())
	}
	return out
}

func (r *Repository) reachable() Finding {
	const check = "repository-reachable"
	switch {
	case errors.Is(r.Err, repository.ErrNoRepository) && !r.Used:
		return warn(check, r.repo(), "%s: %v", r.Place, r.Err)
	case r.Err != nil:
		_, next := Explain(r.Err, r.Names)
		return fail(check, next, "%s: %v", r.Place, r.Err)
	case r.ReadOnly != nil:
		return fail(check, r.repo(), "%s can be read and not written: %v", r.Place, r.ReadOnly)
	}
	return pass(check, "%s, listed in %s", r.Place, span(r.Took))
}

func (r *Repository) space() Finding {
	const check = "repository-space"
	need := 2*r.LastBackup + r.WALPerDay
	seen := line("%s on the disk of %s", share(r.Free, r.Total), r.Place)
	if r.LastBackup > 0 {
		seen += "; the last backup took " + size(r.LastBackup)
	}
	if r.WALPerDay > 0 {
		seen += ", and WAL up to " + size(r.WALPerDay) + " a day"
	}
	switch next := "df -h " + shellWord(r.Place); {
	case r.Total <= 0:
		return warn(check, next, "how much is free on the disk of %s is not known", r.Place)
	case r.Free < r.LastBackup || r.Free < r.Total/100:
		return fail(check, next, "%s", seen)
	case r.Free < need || r.Free < r.Total/20:
		return warn(check, next, "%s", seen)
	}
	return pass(check, "%s", seen)
}

func (r *Repository) key() Finding {
	const check = "repository-key"
	next := "kbcli backuprepo update " + r.Repository + " --identity-file FILE"
	switch {
	case !r.Sealed:
		return pass(check, "it is not sealed")
	case r.KeyErr != nil && errors.Is(r.KeyErr, repository.ErrSealed) && r.Identity:
		return fail(check, next, "the identity file does not open it: %v", r.KeyErr)
	case r.KeyErr != nil && r.Identity:
		return warn(check, next, "whether the identity file opens it is not known: %v", r.KeyErr)
	case !r.Identity:
		return pass(check, "it is sealed, and there is no identity here: backups are taken, and a restore needs one")
	}
	return pass(check, "it is sealed, and the identity file opens it")
}

func (r *Repository) lock() Finding {
	const check = "repository-lock"
	if r.LockErr != nil {
		return warn(check, r.repo(), "who holds locks is not known: %v", r.LockErr)
	}
	if len(r.Locks) == 0 {
		return pass(check, "nobody holds a lock")
	}
	var old []repository.LockedError
	for _, l := range r.Locks {
		if r.Now.Sub(l.Renewed) > 10*time.Minute {
			old = append(old, l)
		}
	}
	if len(old) > 0 {
		return warn(check, r.repo(), "%s was held by %s, which has not renewed it for %s: whoever needs it takes it over", old[0].Name, old[0].Holder, span(r.Now.Sub(old[0].Renewed)))
	}
	return pass(check, "%s, the first %s: %s", count(len(r.Locks), "lock"), r.Locks[0].Name, r.Locks[0].Holder)
}

func (r *Repository) sameDisk() Finding {
	const check = "repository-same-disk"
	if len(r.SameDisk) == 0 {
		return pass(check, "%s is on another disk than the data", r.Place)
	}
	more := ""
	if n := len(r.SameDisk); n > 1 {
		more = " and " + count(n-1, "other")
	}
	return warn(check, "kbcli backuprepo create NAME --provider filesystem --path /ANOTHER/DISK --default",
		"%s is on the same disk as the data of %s%s: a lost disk takes both", r.Place, r.SameDisk[0], more)
}
