// SPDX-License-Identifier: Apache-2.0

package cli

import "github.com/spf13/cobra"

// helpTopics are pages of the manual: `kbcli help NAME`.
func helpTopics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "restore-time", Short: "How to say a moment", Long: restoreTimeText},
		{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesText},
		{Use: "json", Short: "What -o json prints", Long: jsonText},
	}
}

const restoreTimeText = `How to say a moment, for --restore-to-time.

  2023-04-17T19:56:40+08:00             RFC 3339, with T or a space, any fraction
  2023-04-17 19:56:40.123+08            as PostgreSQL prints it; offsets Z, UTC, +08, +0800, +08:00
  Apr 17,2023 19:56:40 UTC+0800         as kbcli prints it; the seconds may be left out
  2023-04-17 19:56:40 Europe/Paris      a named zone as the last word
  10 minutes ago, 10m ago, 2h30m ago    before now, on the clock of the source
  yesterday 15:00, today 09:30          on this machine's calendar
  now, earliest, latest                 the ends of what can be recovered

An offset counts east: UTC+0800 is eight hours ahead of UTC.

A moment without a zone is asked about on a terminal and refused elsewhere, and
so are a wall clock that daylight saving skips or shows twice, and 04/05/2023,
which is April in one country and May in another.

What was committed at that moment or before it is kept; with --exclusive a commit
of exactly that moment is not. A relative time is resolved once, and the
absolute time is what is stored.

The moments that can be said are those of RECOVERABLE-TIME:

  kbcli cluster describe my-pg`

const exitCodesText = `What the exit codes mean.

    0   done
    1   failed
    2   usage, or an ambiguous time
    3   done, with warnings
    4   not found
    5   conflict
    6   timed out
   10   no repository
   11   the repository is locked
   12   wrong key
   20   the target is outside the recoverable window
   21   there is a gap in the WAL
   22   verification failed
   23   restored, but the target was not reached
   30   PostgreSQL is unreachable
   31   the storage is unreachable
  130   interrupted by ^C
  143   terminated

The answer is on stdout, everything else on stderr. An error is a line "error: …",
then "hint: …" and "next: …" where there is something to do; what follows "next: "
can be pasted. "cluster connect" ends as psql ends.`

const jsonText = `What -o json prints.

  list         {"apiVersion": "v1", "kind": "List", "items": […]}, also for none and for one
  list-events, list-instances, list-accounts, context list
               {"items": […]}, of what is no object
  describe     the object: apiVersion, kind, metadata, spec, status
  restore --dry-run
               the plan: which backup, which WAL, the last commit kept and the first lost

  -o yaml      the same in YAML; what a describe prints can be edited and read back
  -o name      a line each: cluster.apps.kubeblocks.io/my-pg
  -o wide      the table with more columns at its end
  -w           with a list: an object at a time, when it changes

Times are UTC, 2023-04-17T11:56:40Z, with six digits of fraction where an instant
of the WAL is meant. Sizes are bytes. A field that is empty may be left out.
Fields are added in later releases, and none is renamed or taken away within
an apiVersion.`
