// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/bounds"
	"github.com/kbcli/kbcli/internal/humantime"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes"
	"github.com/kbcli/kbcli/runtimes/repos"
	"github.com/kbcli/kbcli/runtimes/store/kube"
)

// The exit codes. `kbcli help exit-codes` prints them.
const (
	exitFailed       = 1
	exitUsage        = 2
	exitWarned       = 3
	exitNotFound     = 4
	exitConflict     = 5
	exitTimedOut     = 6
	exitNoRepository = 10
	exitLocked       = 11
	exitWrongKey     = 12
	exitOutside      = 20
	exitGap          = 21
	exitUnverified   = 22
	exitNotReached   = 23
	exitNoPostgreSQL = 30
	exitNoStorage    = 31
)

// saying is what is said of an error.
type saying struct {
	words string // after "error: "
	whole bool   // words are the whole line, as kubectl's are
	hint  string // a line each
	next  string // a command that can be pasted
	code  int
}

func (s saying) write(w io.Writer) {
	words := "error: " + s.words
	if s.whole {
		words = s.words
	}
	fmt.Fprintln(w, words)
	for line := range strings.SplitSeq(s.hint, "\n") {
		if line != "" {
			fmt.Fprintln(w, "hint: "+line)
		}
	}
	if s.next != "" {
		fmt.Fprintln(w, "next: "+s.next)
	}
}

// problem is an error that a verb finds by itself.
type problem struct {
	code       int
	words      string
	hint, next string
	cause      error
}

func (p *problem) Error() string { return p.words }
func (p *problem) Unwrap() error { return p.cause }

func newProblem(code int, format string, args ...any) *problem {
	return &problem{code: code, words: fmt.Sprintf(format, args...)}
}

func usage(format string, args ...any) *problem   { return newProblem(exitUsage, format, args...) }
func missing(format string, args ...any) *problem { return newProblem(exitNotFound, format, args...) }

func conflict(format string, args ...any) *problem { return newProblem(exitConflict, format, args...) }

func failed(format string, args ...any) *problem { return newProblem(exitFailed, format, args...) }

func (p *problem) hints(format string, args ...any) *problem {
	p.hint = fmt.Sprintf(format, args...)
	return p
}

func (p *problem) then(format string, args ...any) *problem {
	p.next = fmt.Sprintf(format, args...)
	return p
}

// row recognises one kind of error. err is the whole chain.
type row struct {
	name string
	of   func(err error) (saying, bool)
}

// on makes a row of a type.
func on[T error](name string, f func(e T, err error) saying) row {
	return row{name, func(err error) (saying, bool) {
		var e T
		if !errors.As(err, &e) {
			return saying{}, false
		}
		return f(e, err), true
	}}
}

// is makes a row of a value.
func is(name string, target error, code int, hint, next string) row {
	return row{name, func(err error) (saying, bool) {
		return saying{words: err.Error(), code: code, hint: hint, next: next}, errors.Is(err, target)
	}}
}

// server makes a row of what a store says, in kubectl's words.
func server(name string, match func(error) bool, code int) row {
	return row{name, func(err error) (saying, bool) {
		if !match(err) {
			return saying{}, false
		}
		words := err.Error()
		if status := apierrors.APIStatus(nil); errors.As(err, &status) {
			words = status.Status().Message
		}
		return saying{words: fmt.Sprintf("Error from server (%s): %s", name, words), whole: true, code: code}, true
	}}
}

// rows is the one table of errors: the first that fits is said.
var rows = []row{
	on("Left", func(e *leftError, _ error) saying {
		return saying{
			words: "interrupted", code: 128 + int(e.cause.Signal), next: e.next,
			hint: "what was asked for goes on without this command",
		}
	}),
	on("Interrupted", func(e Interrupted, _ error) saying {
		return saying{words: "interrupted", code: 128 + int(e.Signal)}
	}),
	on("problem", func(e *problem, _ error) saying {
		return saying{words: e.words, hint: e.hint, next: e.next, code: e.code}
	}),
	on("OutsideWindow", sayOutside),
	on("Gap", sayGap),
	on("NoZone", func(e *humantime.NoZoneError, _ error) saying {
		return saying{words: fmt.Sprintf("time %q has no zone", e.Input), code: exitUsage, hint: fmt.Sprintf("say which zone: %q or %q", e.Suggestions[0], e.Suggestions[1])}
	}),
	on("Skipped", func(e *humantime.SkippedError, err error) saying {
		return saying{words: err.Error(), code: exitUsage, hint: fmt.Sprintf("say %q or %q",
			humantime.FormatExact(e.Before, e.Zone), humantime.FormatExact(e.After, e.Zone))}
	}),
	on("Ambiguous", func(e *humantime.AmbiguousError, err error) saying {
		return saying{words: err.Error(), code: exitUsage, hint: fmt.Sprintf("say %q or %q",
			humantime.FormatExact(e.First, e.Zone), humantime.FormatExact(e.Second, e.Zone))}
	}),
	on("TimeSyntax", func(_ *humantime.SyntaxError, err error) saying {
		return saying{words: err.Error(), code: exitUsage, next: "kbcli help restore-time"}
	}),
	is("NoClock", humantime.ErrNoClock, exitUsage, "", "kbcli help restore-time"),
	on("SourceNotFound", func(e *runtimes.SourceNotFoundError, _ error) saying {
		return saying{words: e.Error(), code: exitNotFound, next: "kbcli cluster list-backup -A"}
	}),
	on("NoBackup", func(e *catalog.NoBackupError, _ error) saying {
		return saying{
			words: e.Error(), code: exitNotFound, next: "kbcli cluster list-backup -A",
			hint: "the repository does not hold it: it may have been deleted there",
		}
	}),
	on("Position", sayPosition),
	on("Transaction", sayTransaction),
	on("NoRestorePoint", sayNoRestorePoint),
	on("Absent", func(e *repository.AbsentError, _ error) saying {
		hint := "only the machine that made a snapshot has it; a backup of type datafile, also a copy of a snapshot, is in the repository"
		if e.Snapshot.VolumeSnapshot != "" {
			hint = "a VolumeSnapshot serves its own namespace of the Kubernetes that made it; a backup of type datafile is in the repository, and serves anywhere"
		}
		return saying{
			words: fmt.Sprintf("backup %q cannot be read: %v", e.Backup, e), code: exitNotFound, next: "kbcli cluster list-backup -A",
			hint: hint,
		}
	}),
	on("MissingWAL", func(_ *repository.MissingWALError, err error) saying {
		return saying{words: err.Error(), code: exitGap, hint: "restore to a moment before the missing WAL, or after the next backup"}
	}),
	on("NoTimeline", func(_ *catalog.NoTimelineError, err error) saying {
		s := saying{words: err.Error(), code: exitOutside, hint: "without --timeline it is the newest that holds the target"}
		var r *restoreError
		if errors.As(err, &r) {
			s.next = fmt.Sprintf("kbcli cluster history %s -n %s --kind timeline", r.source.Cluster, r.source.Namespace)
		}
		return s
	}),
	on("MinimalWAL", func(_ *restore.MinimalWALError, err error) saying {
		return saying{words: err.Error(), code: exitGap, hint: "restore to a moment before that, or to one after the next backup"}
	}),
	on("TablespaceMade", func(_ *restore.TablespaceMadeError, err error) saying {
		return saying{words: err.Error(), code: exitConflict, hint: "restore to a moment before that, or take a backup and restore to one after it"}
	}),
	on("NotReached", func(_ *restore.NotReachedError, err error) saying {
		return saying{words: err.Error(), code: exitNotReached, hint: "what was restored was not handed out"}
	}),
	on("NoSuperuser", func(_ *restore.NoSuperuserError, err error) saying {
		return saying{words: err.Error(), code: exitFailed, hint: "restore to a moment when one could"}
	}),
	on("NoRoom", func(_ *restore.NoRoomError, err error) saying {
		return saying{words: err.Error(), code: exitFailed, hint: "make room on the disk of the state directory, or move it with --state-dir"}
	}),
	on("NotReusable", func(e *restore.NotReusableError, err error) saying {
		s := saying{words: err.Error(), code: exitConflict, hint: "without --delta everything is fetched into a directory of its own"}
		if e.Running {
			s.hint = "stop it first; a restore never writes over a live server"
		}
		return s
	}),
	on("Memory", func(e *bounds.MemoryError, err error) saying {
		return saying{words: err.Error(), code: exitFailed, hint: fmt.Sprintf("give it more: --memory %dMi, or spec.limits.memory of the backup policy", (e.Least+1<<20-1)>>20)}
	}),
	on("NoFit", func(e *runtimes.NoFitError, err error) saying {
		s := saying{words: err.Error(), code: exitConflict}
		if e.Set != "" {
			s.hint = "give --set " + e.Set
		}
		return s
	}),
	on("NotEmpty", func(e *restore.NotEmptyError, err error) saying {
		return saying{
			words: err.Error(), code: exitConflict, next: "ls -la " + e.Dir,
			hint: "give the new cluster another name, take the directory away if nobody needs what is in it, or restore over it with --delta " + e.Dir,
		}
	}),
	on("LogElsewhere", func(e *runtimes.LogElsewhereError, err error) saying {
		s := saying{words: err.Error(), code: exitNotFound, next: e.Command}
		if e.Command == "" {
			s.hint = "it goes where the stderr of who started it goes"
		}
		return s
	}),
	is("NoRepository", repository.ErrNoRepository, exitNoRepository, "", "kbcli backuprepo list"),
	on("Locked", func(_ *repository.LockedError, err error) saying {
		return saying{words: err.Error(), code: exitLocked, hint: "wait until it is done; a lock whose holder is gone is taken over after a while"}
	}),
	is("LockLost", repository.ErrLockLost, exitLocked, "somebody else may be at work in the repository: try again", ""),
	is("Sealed", repository.ErrSealed, exitWrongKey, "give the repository the identity file that its data was sealed for", "kbcli backuprepo update --help"),
	on("Corrupt", func(_ *repository.CorruptError, err error) saying {
		return saying{words: err.Error(), code: exitUnverified, hint: "other backups are not touched by this"}
	}),
	on("Mismatch", func(_ *repository.MismatchError, err error) saying {
		return saying{words: err.Error(), code: exitConflict, hint: "a server that is not the one of this history must be a cluster of its own"}
	}),
	on("StoredConflict", func(_ *repository.ConflictError, err error) saying {
		return saying{words: err.Error(), code: exitConflict, hint: "two servers may be writing to one place"}
	}),
	is("StorageDenied", blob.ErrDenied, exitNoStorage, "the credentials of the repository are wrong or lack a right", "kbcli backuprepo list"),
	is("NoBucket", blob.ErrNoBucket, exitNoStorage, "make the bucket or the directory, or point the repository at another", "kbcli backuprepo list"),
	is("StorageUnreachable", blob.ErrUnreachable, exitNoStorage, "", "kbcli backuprepo list"),
	is("NoSpace", blob.ErrNoSpace, exitFailed, "make room in the storage, or delete backups that nobody needs", "kbcli cluster list-backup -A"),
	is("DiskFull", syscall.ENOSPC, exitFailed, "make room on that disk; what runs goes on when there is some", "df -h"),
	on("Connect", func(_ *pgconn.ConnectError, err error) saying {
		return saying{words: err.Error(), code: exitNoPostgreSQL, next: "kbcli cluster list"}
	}),
	on("SQL", func(e *pgconn.PgError, _ error) saying {
		hint := e.Detail
		if e.Hint != "" {
			hint = strings.TrimPrefix(hint+"\n"+e.Hint, "\n")
		}
		if e.Code == reservedName {
			hint = strings.TrimPrefix(hint+"\nanother name would do, such as app_user", "\n")
		}
		return saying{words: fmt.Sprintf("%s (SQLSTATE %s)", e.Message, e.Code), code: exitFailed, hint: hint}
	}),
	on("NotInstalled", func(*kube.NotInstalledError, error) saying {
		return sayOperator(&kubernetes.OperatorError{}, nil)
	}),
	on("Operator", sayOperator),
	on("NotAllowed", func(e *kubernetes.NotAllowedError, err error) saying {
		return saying{
			words: err.Error(), code: exitFailed, next: "kubectl auth can-i create pods --subresource exec -n " + e.Namespace,
			hint: "kbcli beside the repository answers: to ask it takes the rights to list pods, and to get and create pods/exec, in that namespace",
		}
	}),
	on("Nobody", func(e *kubernetes.NobodyError, err error) saying {
		s := saying{words: err.Error(), code: exitFailed, next: "kbcli kubeblocks status"}
		if e.Unseen {
			s.next, s.hint = "", "to ask it takes the rights to get deployments, to list pods, and to get and create pods/exec, in its namespace"
		}
		return s
	}),
	on("Older", func(_ *kubernetes.OlderError, err error) saying {
		return saying{words: err.Error(), code: exitFailed, next: "kbcli kubeblocks upgrade"}
	}),
	on("Lost", func(_ *kubernetes.LostError, err error) saying {
		return saying{words: err.Error(), code: exitFailed, hint: "the pod may have been ended or moved: try again"}
	}),
	on("NotGiven", func(e *repos.NotGivenError, err error) saying {
		return saying{words: err.Error(), code: exitWrongKey, next: "kbcli backuprepo describe " + e.Repository}
	}),
	on("InstalledElsewhere", func(e *kubernetes.InstalledElsewhereError, _ error) saying {
		return saying{
			words: e.Error(), code: exitConflict, next: "kbcli kubeblocks status",
			hint: fmt.Sprintf("there is one in a Kubernetes: use -n %s, or uninstall it before you install into %s", e.Namespace, e.Asked),
		}
	}),
	on("Settings", func(e *kubernetes.SettingsError, _ error) saying {
		return saying{words: e.Error(), code: exitUsage, next: "kbcli kubeblocks describe-config"}
	}),
	on("NoPrimary", func(e *kubernetes.NoPrimaryError, err error) saying {
		return saying{words: err.Error(), code: exitNoPostgreSQL, next: fmt.Sprintf("kbcli cluster list-instances %s -n %s", e.Cluster, e.Namespace)}
	}),
	on("NoPsql", func(e *kubernetes.NoPsqlError, err error) saying {
		return saying{
			words: err.Error(), code: exitNotFound, next: e.Command(),
			hint: "it is in the package postgresql-client; the pod has one too",
		}
	}),
	on("NoKubernetes", func(_ *kube.UnreachableError, err error) saying {
		return saying{words: err.Error(), code: exitFailed, hint: "the context says where it is", next: "kbcli context list"}
	}),
	{"Unauthorized", func(err error) (saying, bool) {
		s := saying{words: err.Error(), code: exitFailed, hint: "the Kubernetes API does not know who you are: the credentials of the kubeconfig are wrong, or have expired"}
		return s, apierrors.IsUnauthorized(err)
	}},
	server("Forbidden", apierrors.IsForbidden, exitFailed),
	server("NotFound", apierrors.IsNotFound, exitNotFound),
	server("AlreadyExists", apierrors.IsAlreadyExists, exitConflict),
	server("Conflict", apierrors.IsConflict, exitConflict),
	{"Invalid", sayInvalid},
	on("Broken", sayBroken),
	is("Permission", fs.ErrPermission, exitFailed, "use the account that owns it, or a state directory of your own: --state-dir, or KBCLI_STATE_DIR", ""),
	is("Deadline", context.DeadlineExceeded, exitTimedOut, "", ""),
}

// sayOperator is said where nobody acts upon objects.
func sayOperator(e *kubernetes.OperatorError, _ error) saying {
	s := saying{words: e.Error(), code: exitNotFound, next: "kbcli kubeblocks install"}
	if e.Namespace != "" {
		s.code, s.next = exitFailed, "kubectl get pods -n "+e.Namespace
	}
	if e.TimedOut {
		s.code = exitTimedOut
	}
	return s
}

// reservedName is the SQLSTATE of a role that PostgreSQL keeps for itself.
const reservedName = "42939"

// explain finds what to say of err. An error that the table does not know is
// printed as it is, with code 1.
func explain(err error) saying {
	for _, r := range rows {
		if s, ok := r.of(err); ok {
			return s
		}
	}
	return saying{words: err.Error(), code: exitFailed}
}

// restoreError says of which source an error is, and on whose clock to show times.
type restoreError struct {
	source    runtimes.Source
	name      string // of the new cluster
	namespace string // and its
	show      func(catalog.Window) string
	err       error
}

func (e *restoreError) Error() string { return e.err.Error() }
func (e *restoreError) Unwrap() error { return e.err }

func sayOutside(e *catalog.OutsideWindowError, err error) saying {
	s := saying{words: e.Error(), code: exitOutside}
	var r *restoreError
	if !errors.As(err, &r) {
		return s
	}
	s.words = fmt.Sprintf("restore-to-time is out of time range, you can view the recoverable time: \n\tkbcli cluster describe %s -n %s",
		r.source.Cluster, r.source.Namespace)
	if len(e.Windows) == 0 {
		s.hint = "there is no recoverable time yet: it begins with the first backup that completes"
		return s
	}
	lines := make([]string, len(e.Windows))
	for i, w := range e.Windows {
		lines[i] = "the recoverable time is " + r.show(w)
		if i > 0 {
			lines[i] = "and " + r.show(w)
		}
	}
	for _, w := range e.Elsewhere {
		lines = append(lines, fmt.Sprintf("timeline %s, which was left, has %s: give --timeline %s", w.Timeline, r.show(w), w.Timeline))
	}
	if e.ClockSetBack {
		lines = append(lines, "the server's clock was set back past that moment: give --restore-to-lsn or --restore-to-xid")
	}
	s.hint = strings.Join(lines, "\n")
	return s
}

func sayGap(e *catalog.GapError, err error) saying {
	s := saying{words: e.Error(), code: exitGap}
	var r *restoreError
	if errors.As(err, &r) {
		s.hint = fmt.Sprintf("the recoverable time is %s\nand %s", r.show(e.Before), r.show(e.After))
		s.next = fmt.Sprintf("kbcli cluster describe %s -n %s", r.source.Cluster, r.source.Namespace)
	}
	return s
}
