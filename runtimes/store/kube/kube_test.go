// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/runtimes/store"
	"github.com/kbcli/kbcli/runtimes/store/storetest"
)

const crds = "../../../deploy/helm/crds"

func install(t *testing.T, c *testkube.Cluster) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(crds, "*.yaml"))
	if err != nil || len(names) != len(v1alpha1.Kinds()) {
		t.Fatalf("%d definitions, %v", len(names), err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c.Apply(t, string(text))
	}
	c.Kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
}

func configOf(c *testkube.Cluster) *rest.Config {
	return &rest.Config{Host: c.Host, BearerToken: c.Token, TLSClientConfig: rest.TLSClientConfig{CAFile: c.CAFile}}
}

func openAt(t *testing.T, config *rest.Config) *Store {
	t.Helper()
	s, err := New(config, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var installed sync.Once

// empty is the store of the one API server of this test process, without any object.
func empty(t *testing.T) (*Store, *testkube.Cluster) {
	t.Helper()
	c := testkube.Control(t)
	installed.Do(func() { install(t, c) })
	s := openAt(t, configOf(c))
	for _, k := range v1alpha1.Kinds() {
		texts, _, err := s.list(t.Context(), k, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			remove(t, s, k, head(k, text).key)
		}
	}
	return s, c
}

func remove(t *testing.T, s *Store, k v1alpha1.Kind, key store.Key) {
	t.Helper()
	r := s.groups[k.Group].Patch("application/merge-patch+json").NamespaceIfScoped(key.Namespace, k.Namespaced).Resource(k.Plural).Name(key.Name)
	if _, err := answer(t.Context(), k, r.Body([]byte(`{"metadata":{"finalizers":null}}`))); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), k.Name, key.Namespace, key.Name, store.Preconditions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

// post sends an object as somebody without kbcli would.
func post(ctx context.Context, s *Store, k v1alpha1.Kind, namespace string, o any, query ...string) ([]byte, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	r := s.groups[k.Group].Post().NamespaceIfScoped(namespace, k.Namespaced).Resource(k.Plural)
	for i := 0; i < len(query); i += 2 {
		r.Param(query[i], query[i+1])
	}
	return answer(ctx, k, r.Body(body).SetHeader("Content-Type", "application/json"))
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, _ := empty(t)
		return s
	})
}

// TestColumns: kubectl shows what kbcli's own lists show, and knows the short names.
func TestColumns(t *testing.T) {
	s, c := empty(t)
	o := &v1alpha1.Cluster{}
	o.Namespace, o.Name = "default", "my-pg"
	if err := s.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	p := &v1alpha1.BackupPolicy{}
	p.Namespace, p.Name = "default", "my-pg-postgresql-backup-policy"
	p.Spec.ClusterRef = "my-pg"
	if err := s.Create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	for word, want := range map[string]string{
		"clusters":   "NAME CLUSTER-DEFINITION VERSION TERMINATION-POLICY STATUS AGE",
		"bp":         "NAME DEFAULT CLUSTER STATUS AGE",
		"kubeblocks": "NAME CLUSTER-DEFINITION VERSION TERMINATION-POLICY STATUS AGE",
	} {
		out := c.Kubectl(t, "get", word)
		if word == "kubeblocks" {
			out = out[strings.Index(out, "NAME "):]
			if !strings.Contains(out, "cluster.apps.kubeblocks.io/my-pg") || !strings.Contains(out, "backuppolicy.dataprotection.kubeblocks.io/my-pg-postgresql-backup-policy") {
				t.Errorf("the category lacks something:\n%s", out)
			}
			continue
		}
		header, _, _ := strings.Cut(out, "\n")
		if got := strings.Join(strings.Fields(header), " "); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
	if out := c.Kubectl(t, "explain", "backuppolicy.spec.retention.ttl"); !strings.Contains(out, "TTL is a number of days or hours, 7d or 168h.") {
		t.Errorf("explained as\n%s", out)
	}
}

// TestNotInstalled: a kind that the server does not know is not an object that is missing.
func TestNotInstalled(t *testing.T) {
	s, c := empty(t)
	c.Kubectl(t, "delete", "crd", "addons.extensions.kubeblocks.io")
	defer install(t, c)
	var no *NotInstalledError
	for what, err := range map[string]error{
		"get":    func() error { _, err := s.Get(t.Context(), v1alpha1.KindAddon, "", "x"); return err }(),
		"list":   func() error { _, err := s.List(t.Context(), v1alpha1.KindAddon, "", nil); return err }(),
		"watch":  func() error { _, err := s.Watch(t.Context(), v1alpha1.KindAddon, ""); return err }(),
		"delete": s.Delete(t.Context(), v1alpha1.KindAddon, "", "x", store.Preconditions{}),
	} {
		if !errors.As(err, &no) || no.Kind.Name != v1alpha1.KindAddon || apierrors.IsNotFound(err) {
			t.Errorf("%s: %T %v", what, err, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s := openAt(t, &rest.Config{Host: "https://" + l.Addr().String()})
	_, err = s.Get(t.Context(), v1alpha1.KindCluster, "default", "x")
	var no *UnreachableError
	if !errors.As(err, &no) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%T %v", err, err)
	}
	c := testkube.Control(t)
	config := configOf(c)
	config.BearerToken = "wrong"
	if _, err := openAt(t, config).Get(t.Context(), v1alpha1.KindCluster, "default", "x"); !apierrors.IsUnauthorized(err) {
		t.Errorf("%T %v", err, err)
	}
}

// gate is a way to the API server that can be closed: what goes through is cut off.
type gate struct {
	to string
	l  net.Listener

	mu    sync.Mutex
	open  bool
	conns map[net.Conn]bool
}

func newGate(t *testing.T, c *testkube.Cluster) (*gate, *rest.Config) {
	t.Helper()
	u, err := url.Parse(c.Host)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{to: u.Host, l: l, open: true, conns: make(map[net.Conn]bool)}
	go g.run()
	t.Cleanup(func() {
		l.Close()
		g.set(false)
	})
	config := configOf(c)
	config.Host = "https://" + l.Addr().String()
	config.Dial = (&net.Dialer{}).DialContext
	// A pool of its own: connections of other tests do not go through the gate.
	config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	return g, config
}

func (g *gate) run() {
	for {
		near, err := g.l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", g.to)
		if err != nil {
			near.Close()
			continue
		}
		g.mu.Lock()
		open := g.open
		if open {
			g.conns[near], g.conns[far] = true, true
		}
		g.mu.Unlock()
		if !open {
			near.Close()
			far.Close()
			continue
		}
		for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
			go func() {
				_, _ = io.Copy(way[0], way[1])
				way[0].Close()
				way[1].Close()
			}()
		}
	}
}

func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = open
	if !open {
		for c := range g.conns {
			c.Close()
		}
		clear(g.conns)
	}
}
