// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/atomicfile"
	"github.com/kbcli/kbcli/runtimes"
)

const (
	// maxEvents is how many events of one cluster are kept, the newest.
	maxEvents = 1000
	// sameEvent is how long the same event raises the count of the one before.
	sameEvent = time.Hour
	// keepEvents is how long the events of a cluster that is gone are kept.
	keepEvents = 30 * 24 * time.Hour
	// maxMessage is how many bytes of a message are kept.
	maxMessage = 2000
)

const eventsSuffix = ".jsonl"

// events keeps what happened, a JSON object a line and a file a cluster:
//
//	<dir>/installation.jsonl           what belongs to no cluster
//	<dir>/<namespace>/<cluster>.jsonl
//
// A file is appended to, or replaced as a whole when a count rises or the oldest
// have to go. A last line that a kill left torn is not read, and is cut off by the next
// writing. Writers in several processes take turns by dir's lock; readers take
// none. An event is not worth an fsync: after a power cut the newest may be missing.
type events struct{ dir string }

func (e events) path(namespace, cluster string) string {
	if cluster == "" {
		return filepath.Join(e.dir, "installation"+eventsSuffix)
	}
	return filepath.Join(e.dir, namespace, cluster+eventsSuffix)
}

func (e events) lock() (*flock.Flock, error) {
	if err := os.MkdirAll(e.dir, 0o755); err != nil {
		return nil, err
	}
	l := flock.New(filepath.Join(e.dir, "lock"))
	return l, l.Lock()
}

// record adds an event whose First is set, or raises the count of the same one.
func (e events) record(ev runtimes.Event) error {
	if len(ev.Message) > maxMessage {
		ev.Message = strings.ToValidUTF8(ev.Message[:maxMessage], "") + "…"
	}
	ev.Count, ev.Last = 1, ev.First
	lock, err := e.lock()
	if err != nil {
		return fmt.Errorf("record an event: %w", err)
	}
	defer lock.Close()
	path := e.path(ev.Namespace, ev.Cluster)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("record an event: %w", err)
	}
	have, whole, err := readEvents(path)
	if err != nil {
		return fmt.Errorf("record an event: %w", err)
	}
	i := slices.IndexFunc(have, func(x runtimes.Event) bool {
		return x.Namespace == ev.Namespace && x.Cluster == ev.Cluster && x.Object == ev.Object && x.Type == ev.Type &&
			x.Reason == ev.Reason && x.Message == ev.Message && ev.First.Sub(x.Last) < sameEvent
	})
	if i < 0 && whole && len(have) < maxEvents {
		return appendEvent(path, ev)
	}
	if i >= 0 {
		ev.First, ev.Count = have[i].First, have[i].Count+1
		have = slices.Delete(have, i, i+1)
	}
	have = append(have, ev)
	if n := len(have) - maxEvents; n > 0 {
		// Some more, so that not every event writes the whole file.
		have = have[n+maxEvents/10:]
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, x := range have {
		if err := enc.Encode(x); err != nil {
			return fmt.Errorf("record an event: %w", err)
		}
	}
	return atomicfile.Write(path, b.Bytes(), 0o644)
}

// appendEvent adds a line with one write.
func appendEvent(path string, ev runtimes.Event) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(ev); err != nil {
		return fmt.Errorf("record an event: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("record an event: %w", err)
	}
	_, err = f.Write(b.Bytes())
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("record an event: %w", err)
	}
	return nil
}

// readEvents reads a file. Lines that are not events are passed over, and whole is
// false then: the file has to be written anew.
func readEvents(path string) (out []runtimes.Event, whole bool, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	whole = len(text) == 0 || text[len(text)-1] == '\n'
	for line := range bytes.Lines(text) {
		var ev runtimes.Event
		if line[len(line)-1] != '\n' || json.Unmarshal(line, &ev) != nil || ev.Reason == "" {
			whole = false
			continue
		}
		out = append(out, ev)
	}
	return out, whole, nil
}

// list reads the events of one cluster, or with an empty name all there are of the
// namespace and what belongs to no cluster; oldest first.
func (e events) list(namespace, cluster string) ([]runtimes.Event, error) {
	paths := []string{e.path(namespace, cluster)}
	if cluster == "" {
		pattern := namespace
		if pattern == "" {
			pattern = "*"
		}
		more, err := filepath.Glob(filepath.Join(e.dir, pattern, "*"+eventsSuffix))
		if err != nil {
			return nil, err
		}
		paths = append(paths, more...)
	}
	var out []runtimes.Event
	for _, p := range paths {
		got, _, err := readEvents(p)
		if err != nil {
			return nil, fmt.Errorf("read events: %w", err)
		}
		out = append(out, got...)
	}
	slices.SortStableFunc(out, func(a, b runtimes.Event) int { return cmp.Or(a.Last.Compare(b.Last), a.First.Compare(b.First)) })
	return out, nil
}

// forget removes the files of clusters that are gone and to which nothing has happened
// for a while.
func (e events) forget(now time.Time, lives func(namespace, cluster string) bool) error {
	lock, err := e.lock()
	if err != nil {
		return fmt.Errorf("forget events: %w", err)
	}
	defer lock.Close()
	paths, err := filepath.Glob(filepath.Join(e.dir, "*", "*"+eventsSuffix))
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range paths {
		namespace, cluster := filepath.Base(filepath.Dir(p)), strings.TrimSuffix(filepath.Base(p), eventsSuffix)
		st, err := os.Stat(p)
		if err != nil || lives(namespace, cluster) || now.Sub(st.ModTime()) < keepEvents {
			continue
		}
		errs = append(errs, os.Remove(p))
	}
	return errors.Join(errs...)
}

var _ runtimes.EventReader = (*Runtime)(nil)

func (r *Runtime) happened() events { return events{filepath.Join(r.state, "events")} }

// Events lists what happened.
func (r *Runtime) Events(_ context.Context, namespace, cluster string) ([]runtimes.Event, error) {
	for _, name := range []string{namespace, cluster} {
		if strings.ContainsAny(name, `/*?[\`) || name == ".." || name == "." {
			return nil, nil // what cannot be a name has no past
		}
	}
	return r.happened().list(namespace, cluster)
}

// event records that something happened to an object such as "Backup/b1". That it
// could not be recorded stops nobody: it is logged.
func (r *Runtime) event(namespace, cluster, object string, t runtimes.EventType, reason, format string, args ...any) {
	ev := runtimes.Event{
		Namespace: namespace, Cluster: cluster, Object: object, Type: t, Reason: reason,
		Message: strings.TrimSpace(fmt.Sprintf(format, args...)), First: r.clock().UTC().Truncate(time.Microsecond),
	}
	if err := r.happened().record(ev); err != nil {
		r.log.Warn("an event is lost", "object", object, "reason", reason, "error", err)
	}
}

// forgetEvents lets the events of clusters go that have been gone for long.
func (r *Runtime) forgetEvents(ctx context.Context) error {
	all, err := r.clusters(ctx)
	if err != nil {
		return err // one that cannot be read lives
	}
	return r.happened().forget(r.clock(), func(namespace, cluster string) bool {
		return slices.ContainsFunc(all, func(c *v1alpha1.Cluster) bool { return c.Namespace == namespace && c.Name == cluster })
	})
}
