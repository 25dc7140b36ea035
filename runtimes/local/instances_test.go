// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/testpg"
	"github.com/kbcli/kbcli/runtimes"
)

// TestAttachedServer asks a server that somebody else runs about itself, and reads its
// log wherever that goes.
func TestAttachedServer(t *testing.T) {
	s := testpg.Start(t, testpg.Options{Major: 15})
	r, err := Open(t.Context(), Options{StateDir: t.TempDir(), Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	two := resource.MustParse("2")
	c := &v1alpha1.Cluster{}
	c.Namespace, c.Name = "default", "old"
	c.Spec.Local = &v1alpha1.LocalSpec{Attached: true, Connect: fmt.Sprintf("host=%s port=%d user=postgres", s.SocketDir, s.Port)}
	c.Spec.Resources.CPU = &two
	c.Status.Phase, c.Status.DataDirectory = v1alpha1.ClusterRunning, s.DataDir
	c.Status.SocketDirectory, c.Status.Port = s.SocketDir, int32(s.Port)
	one := func() runtimes.Instance {
		t.Helper()
		got, err := r.Instances(t.Context(), c)
		if err != nil || len(got) != 1 {
			t.Fatalf("%v, %v", got, err)
		}
		return got[0]
	}
	node, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	i := one()
	if i.Name != "old-postgresql-0" || i.Role != "primary" || i.AccessMode != "ReadWrite" || i.CPU != "2 / 2" || i.Node != node || !strings.Contains(i.Storage, "MB / ") {
		t.Errorf("%+v", i)
	}
	size, err := diskUsage(s.DataDir)
	if err != nil || size < 20<<20 || size > 200<<20 {
		t.Errorf("%d bytes, %v", size, err)
	}

	read := func(want string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			var b bytes.Buffer
			err := r.Logs(t.Context(), c, runtimes.LogOptions{Tail: 20}, &b)
			if err == nil && strings.Contains(b.String(), want) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%v, %q", err, b.String())
			}
		}
	}
	say := func(words string) {
		t.Helper()
		conn, err := r.Admin(t.Context(), c, "postgres")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if _, err := conn.Exec(t.Context(), "do $$begin raise log '"+words+"'; end$$"); err != nil {
			t.Fatal(err)
		}
	}
	say("to stderr")
	read("to stderr")
	s.Stop(t, testpg.Fast)
	if i := one(); i.Role != "" || i.Status != string(v1alpha1.ClusterUnknown) {
		t.Errorf("a server that was stopped is %+v", i)
	}
	s.Set(t, map[string]string{"logging_collector": "on", "log_directory": "pg_log", "default_transaction_read_only": "on"})
	s.Start(t)
	say("to the collector")
	read("to the collector")
	if i := one(); i.AccessMode != "Readonly" {
		t.Errorf("%+v", i)
	}
}
