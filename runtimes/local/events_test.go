// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/runtimes"
)

func TestEvents(t *testing.T) {
	e := events{filepath.Join(t.TempDir(), "events")}
	began := time.Date(2023, 4, 17, 11, 55, 48, 0, time.UTC)
	at := func(minutes int) time.Time { return began.Add(time.Duration(minutes) * time.Minute) }
	record := func(minutes int, cluster, reason, message string) {
		t.Helper()
		err := e.record(runtimes.Event{Namespace: "default", Cluster: cluster, Object: "Cluster/" + cluster, Type: runtimes.EventNormal, Reason: reason, Message: message, First: at(minutes)})
		if err != nil {
			t.Fatal(err)
		}
	}
	shown := func(namespace, cluster string) []string {
		t.Helper()
		got, err := e.list(namespace, cluster)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, ev := range got {
			out = append(out, fmt.Sprintf("%s %s ×%d %s %s", ev.Cluster, ev.Reason, ev.Count, ev.First.Sub(began), ev.Last.Sub(began)))
		}
		return out
	}
	want := func(got []string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	want(shown("default", "a"))
	record(0, "a", "Started", "x")
	record(1, "a", "Unreachable", "x")
	record(2, "a", "Started", "x")
	record(3, "a", "Started", "y")
	record(4, "b", "Started", "x")
	want(shown("default", "a"), "a Unreachable ×1 1m0s 1m0s", "a Started ×2 0s 2m0s", "a Started ×1 3m0s 3m0s")
	// what happened long ago is another matter
	record(90, "a", "Started", "x")
	want(shown("default", "a"), "a Unreachable ×1 1m0s 1m0s", "a Started ×2 0s 2m0s", "a Started ×1 3m0s 3m0s", "a Started ×1 1h30m0s 1h30m0s")
	if err := e.record(runtimes.Event{Object: "BackupRepo/r", Reason: "Ready", First: at(5)}); err != nil {
		t.Fatal(err)
	}
	want(shown("default", "b"), "b Started ×1 4m0s 4m0s")
	if got := shown("default", ""); len(got) != 6 {
		t.Errorf("the namespace has %q", got)
	}
	want(shown("other", ""), " Ready ×1 5m0s 5m0s")

	// What a kill left of a line is not read, and gone with the next event.
	path := e.path("default", "b")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n < len(text); n++ {
		if err := os.WriteFile(path, append(text[:len(text):len(text)], text[:n-1]...), 0o644); err != nil {
			t.Fatal(err)
		}
		want(shown("default", "b"), "b Started ×1 4m0s 4m0s")
		record(6, "b", "Stopped", "x")
		want(shown("default", "b"), "b Started ×1 4m0s 4m0s", "b Stopped ×1 6m0s 6m0s")
	}

	for i := range maxEvents + 50 {
		record(100+i, "c", "Started", strconv.Itoa(i))
	}
	got := shown("default", "c")
	if len(got) > maxEvents || len(got) < maxEvents*8/10 || !strings.HasPrefix(got[len(got)-1], fmt.Sprintf("c Started ×1 %s", at(100+maxEvents+49).Sub(began))) {
		t.Errorf("%d events, the last is %s", len(got), got[len(got)-1])
	}

	old := time.Now().Add(-keepEvents - time.Hour)
	for _, name := range []string{"a", "b"} {
		if err := os.Chtimes(e.path("default", name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.forget(time.Now(), func(_, cluster string) bool { return cluster == "a" }); err != nil {
		t.Fatal(err)
	}
	if len(shown("default", "a")) == 0 || len(shown("default", "b")) != 0 || len(shown("default", "c")) == 0 {
		t.Error("the wrong events were forgotten")
	}
}

// TestEventsOfProcesses: many write at once, some of them are killed, and each event
// of those who were not is there, once.
func TestEventsOfProcesses(t *testing.T) {
	const each = 40
	if dir := os.Getenv("KBCLI_TEST_EVENTS"); dir != "" {
		e := events{dir}
		for i := 0; ; i++ {
			if i == each && os.Getenv("KBCLI_TEST_KILLED") == "" {
				return
			}
			err := e.record(runtimes.Event{Namespace: "default", Cluster: "a", Object: os.Getenv("KBCLI_TEST_NAME"), Reason: "R", Message: strconv.Itoa(i % each), First: time.Now().UTC()})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	dir := filepath.Join(t.TempDir(), "events")
	start := func(name, killed string) *exec.Cmd {
		c := exec.Command(os.Args[0], "-test.run=^TestEventsOfProcesses$")
		c.Env = append(os.Environ(), "KBCLI_TEST_EVENTS="+dir, "KBCLI_TEST_NAME="+name, "KBCLI_TEST_KILLED="+killed)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	var wg sync.WaitGroup
	for i := range 3 {
		c := start("kept"+strconv.Itoa(i), "")
		wg.Go(func() {
			if err := c.Wait(); err != nil {
				t.Error(err)
			}
		})
		for range 3 {
			k := start("killed", "yes")
			wg.Go(func() {
				time.Sleep(150 * time.Millisecond)
				_ = k.Process.Kill()
				_ = k.Wait()
			})
		}
	}
	wg.Wait()
	got, err := events{dir}.list("default", "a")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, ev := range got {
		if strings.HasPrefix(ev.Object, "kept") {
			seen[ev.Object+" "+ev.Message] += ev.Count
		}
	}
	if len(seen) != 3*each {
		t.Errorf("%d events, want %d", len(seen), 3*each)
	}
	for k, n := range seen {
		if n != 1 {
			t.Errorf("%s was recorded %d times", k, n)
		}
	}
}
