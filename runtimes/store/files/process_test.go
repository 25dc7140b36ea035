// SPDX-License-Identifier: Apache-2.0

package files

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
	"github.com/kbcli/kbcli/runtimes/store/storetest"
)

// The test binary is also the other processes: the variable says which part
// it plays, and in which directory.
const roleVariable, dirVariable = "KBCLI_TEST_STORE_ROLE", "KBCLI_TEST_STORE_DIR"

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if role == "" {
		os.Exit(m.Run())
	}
	s, err := Open(os.Getenv(dirVariable), clock)
	if err == nil {
		err = map[string]func(*Store) error{"count": count, "scribble": scribble}[role](s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

const childCounts = 15

func count(s *Store) error {
	return storetest.Count(context.Background(), s, "my-pg", childCounts)
}

// scribble changes two settings to the same value, and a long third one, for ever.
func scribble(s *Store) error {
	fmt.Println("begun")
	for i := 0; ; i++ {
		if _, err := store.Mutate(context.Background(), s, "default", "my-pg", func(c *v1alpha1.Cluster) error {
			n := strconv.Itoa(i)
			c.Spec.Settings = map[string]string{"a.first": n, "a.long": strings.Repeat("x", 1+i*7919%50000), "z.last": n}
			return nil
		}); err != nil {
			return err
		}
	}
}

func child(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), roleVariable+"="+role, dirVariable+"="+dir)
	c.Stderr = t.Output()
	return c
}

func newCluster(t *testing.T, s *Store) {
	t.Helper()
	must(t, s.Create(t.Context(), &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "my-pg"}}))
}

func TestProcesses(t *testing.T) {
	s := open(t)
	newCluster(t, s)
	events, err := s.Watch(t.Context(), v1alpha1.KindCluster, "")
	must(t, err)
	const processes = 4
	children := make([]*exec.Cmd, processes)
	for i := range children {
		children[i] = child(t, "count", s.dir)
		must(t, children[i].Start())
	}
	must(t, storetest.Count(t.Context(), s, "my-pg", childCounts))
	for _, c := range children {
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}
	const total = (processes + 1) * childCounts
	c, err := store.Get[*v1alpha1.Cluster](t.Context(), s, "default", "my-pg")
	must(t, err)
	if c.Annotations["count"] != strconv.Itoa(total) || c.Status.PID != total {
		t.Errorf("updates were lost: %q and %d of %d", c.Annotations["count"], c.Status.PID, total)
	}
	for {
		e := storetest.Next(t, events)
		if o, ok := e.Object.(*v1alpha1.Cluster); ok && o.ResourceVersion == c.ResourceVersion {
			break
		}
	}
}

func TestKilled(t *testing.T) {
	s := open(t)
	newCluster(t, s)
	for range 25 {
		c := child(t, "scribble", s.dir)
		out, err := c.StdoutPipe()
		must(t, err)
		must(t, c.Start())
		_, err = io.ReadFull(out, make([]byte, 5))
		must(t, err)
		time.Sleep(rand.N(20 * time.Millisecond))
		must(t, c.Process.Kill())
		_ = c.Wait() // it was killed
		o, err := store.Get[*v1alpha1.Cluster](t.Context(), s, "default", "my-pg")
		must(t, err)
		if o.Spec.Settings["a.first"] != o.Spec.Settings["z.last"] {
			t.Fatalf("a mixture: %s and %s", o.Spec.Settings["a.first"], o.Spec.Settings["z.last"])
		}
		// Its lock went with it.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err = store.Mutate(ctx, s, "default", "my-pg", func(c *v1alpha1.Cluster) error { c.Spec.Stopped = !c.Spec.Stopped; return nil })
		cancel()
		must(t, err)
	}
	openIn(t, s.dir)
	left, err := filepath.Glob(filepath.Join(s.dir, "clusters", "default", ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
