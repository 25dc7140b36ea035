// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kbcli/kbcli/engine/catalog"
)

// restoreWith is the start of a command that restores from the source of err with
// another target; empty if the source is not known.
func restoreWith(err error, target string) string {
	var r *restoreError
	if !errors.As(err, &r) {
		return ""
	}
	from := r.source.Cluster
	if r.namespace != r.source.Namespace {
		from += " --source-namespace " + r.source.Namespace
	}
	return fmt.Sprintf("kbcli cluster restore %s --source-cluster %s -n %s %s", r.name, from, r.namespace, target)
}

func sayPosition(e *catalog.PositionError, err error) saying {
	s := saying{words: e.Error(), code: exitOutside}
	if e.Backup != "" {
		s.hint = fmt.Sprintf("the first position that can be restored to is %s", e.Consistent)
		if e.After != 0 {
			s.hint += fmt.Sprintf("; the first record after it starts at %s", e.After)
		}
		s.next = restoreWith(err, "--restore-to-time earliest")
		return s
	}
	s.hint = "if the server has written it, wait until it is archived"
	s.next = restoreWith(err, "--latest")
	if e.Before != 0 {
		s.hint += fmt.Sprintf("\nthe last record that can be restored to starts at %s", e.Before)
		s.next = restoreWith(err, "--restore-to-lsn "+e.Before.String())
	}
	return s
}

func sayTransaction(e *catalog.TransactionError, err error) saying {
	s := saying{words: e.Error(), code: exitOutside}
	xid := func(n any) string { return restoreWith(err, fmt.Sprintf("--restore-to-xid %v", n)) }
	lsn := func() string { return restoreWith(err, "--restore-to-lsn "+e.LSN.String()) }
	switch e.State {
	case catalog.XactSub:
		s.hint, s.next = "only whole transactions can be restored to", xid(e.Parent)
	case catalog.XactPrepared:
		s.hint = "its changes count from COMMIT PREPARED on"
		if e.LSN != 0 {
			s.hint, s.next = s.hint+"; restore to the LSN to have it prepared", lsn()
		}
	case catalog.XactRunning:
		s.hint = "its changes count from its commit on; wait until it has ended and is archived"
	case catalog.XactUnfinished:
		s.hint = "nothing of it ever counted"
	case catalog.XactEarlier:
		s.hint, s.next = "what it changed is in every backup, if it committed", restoreWith(err, "--restore-to-time earliest")
	case catalog.XactInBackup:
		s.hint, s.next = "the end of the first backup is the nearest that can be restored to", restoreWith(err, "--restore-to-time earliest")
	default:
		s.hint = "if the server has given it out, wait until its end is archived"
	}
	return s
}

func sayNoRestorePoint(e *catalog.NoRestorePointError, err error) saying {
	s := saying{words: e.Error(), code: exitOutside}
	switch {
	case !e.At.IsZero():
		s.next = restoreWith(err, "--restore-to-time earliest")
	case len(e.Known) > 0:
		s.hint = "there are: " + strings.Join(e.Known, ", ")
	default:
		s.hint = "there is none: select pg_create_restore_point('name') makes one"
	}
	return s
}
