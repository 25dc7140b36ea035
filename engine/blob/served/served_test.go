// SPDX-License-Identifier: Apache-2.0

package served_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/blobtest"
	"github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/blob/served"
)

func access(t *testing.T) served.Access {
	t.Helper()
	a, err := served.NewAccess(time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// serve hands out a directory, through wrap where there is one.
func serve(t *testing.T, a served.Access, store blob.Store, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	get := func() (served.Access, error) { return a, nil }
	x := served.Server{
		Store: store, Access: get, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Space: func() (served.Space, error) { return served.Space{Capacity: 1000, Free: 10}, nil },
	}
	h := x.Handler()
	if wrap != nil {
		h = wrap(h)
	}
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelError)
	s.TLS = served.ServerTLS(get)
	s.StartTLS()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "https://")
}

func open(t *testing.T, endpoint string, a served.Access) *served.Store {
	t.Helper()
	s, err := served.Open(served.Config{Name: "volume x", Endpoint: endpoint, Access: func() (served.Access, error) { return a.ForClients(), nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func directory(t *testing.T) *fs.Store {
	t.Helper()
	d, err := fs.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestConformance(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store {
		a := access(t)
		return open(t, serve(t, a, directory(t), nil), a)
	})
}

// What the place behind says arrives as what it is.
type broken struct {
	blob.Store
	err error
}

func (b broken) Put(ctx context.Context, key string, body blob.Body) error { return b.err }

func (b broken) Stat(ctx context.Context, key string) (blob.Info, error) { return blob.Info{}, b.err }

func TestFaults(t *testing.T) {
	known := []error{blob.ErrNotExist, blob.ErrExist, blob.ErrUnreachable, blob.ErrDenied, blob.ErrNoSpace, blob.ErrNoBucket}
	for _, want := range append(known, errors.New("something else")) {
		t.Run(want.Error(), func(t *testing.T) {
			a := access(t)
			s := open(t, serve(t, a, broken{err: fmt.Errorf("behind: %w", want)}, nil), a)
			_, err := s.Stat(t.Context(), "a/b")
			for _, got := range []error{err, s.Put(t.Context(), "a/b", strings.NewReader("x"))} {
				if got == nil || !strings.Contains(got.Error(), "behind: "+want.Error()) {
					t.Errorf("the words are %v", got)
				}
				for _, k := range known {
					if errors.Is(got, k) != (k == want) {
						t.Errorf("%v is %v: %v", got, k, errors.Is(got, k))
					}
				}
			}
		})
	}
}

// A Put of what is there sends no bytes.
func TestNothingIsSentTwice(t *testing.T) {
	a := access(t)
	s := open(t, serve(t, a, directory(t), nil), a)
	big := &counted{Reader: strings.NewReader(strings.Repeat("x", 4<<20))}
	if err := s.Put(t.Context(), "a", big); err != nil || big.n.Load() != big.Size() {
		t.Fatalf("%v, %d bytes", err, big.n.Load())
	}
	big.n.Store(0)
	if err := s.Put(t.Context(), "a", big); !errors.Is(err, blob.ErrExist) || big.n.Load() != 0 {
		t.Errorf("%v, %d bytes were sent", err, big.n.Load())
	}
}

// counted is a body that counts what is read of it.
type counted struct {
	*strings.Reader
	n atomic.Int64
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.Reader.ReadAt(p, off)
	c.n.Add(int64(n))
	return n, err
}

// Who has another token, or is another server, is denied; who does not answer is
// unreachable; neither is absence.
func TestAccess(t *testing.T) {
	a, other := access(t), access(t)
	at := serve(t, a, directory(t), nil)
	token := a
	token.Token = other.Token
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := gone.Addr().String()
	gone.Close()
	page := func(status int) string {
		return serve(t, a, directory(t), func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "a page", status) })
		})
	}
	for _, c := range []struct {
		name, endpoint string
		access         served.Access
		want           error
	}{
		{"another token", at, token, blob.ErrDenied},
		{"another server", at, other, blob.ErrDenied},
		{"nobody", nobody, a, blob.ErrUnreachable},
		{"somebody's 404", page(404), a, blob.ErrUnreachable},
		{"somebody's 412", page(412), a, blob.ErrUnreachable},
		{"somebody's 502", page(502), a, blob.ErrUnreachable},
		{"somebody's 301", page(301), a, blob.ErrUnreachable},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, c.endpoint, c.access)
			_, stat := s.Stat(t.Context(), "a")
			_, get := s.Get(t.Context(), "a", 0, -1)
			_, space := s.Space(t.Context())
			var list error
			for _, err := range s.List(t.Context(), "") {
				list = err
			}
			for verb, err := range map[string]error{
				"stat": stat, "get": get, "list": list, "space": space, "put": s.Put(t.Context(), "a", strings.NewReader("x")),
				"replace": s.Replace(t.Context(), "a", strings.NewReader("x")), "delete": s.Delete(t.Context(), "a"),
			} {
				if !errors.Is(err, c.want) || errors.Is(err, blob.ErrNotExist) || errors.Is(err, blob.ErrExist) {
					t.Errorf("%s: %v", verb, err)
				}
				if err != nil && (strings.Contains(err.Error(), a.Token) || strings.Contains(err.Error(), other.Token)) {
					t.Errorf("%s: the token is in %v", verb, err)
				}
			}
		})
	}
	if words := fmt.Sprintf("%v %+v %#v", a, a, a); strings.Contains(words, a.Token) {
		t.Error("an access prints its token")
	}
	if b, err := a.ForClients().Bytes(); err != nil || strings.Contains(string(b), `"key"`) {
		t.Errorf("clients are given the key: %s, %v", b, err)
	}
	if x, err := open(t, at, a).Space(t.Context()); err != nil || x != (served.Space{Capacity: 1000, Free: 10}) {
		t.Errorf("%+v, %v", x, err)
	}
}

// A body and a list that break off are errors, and Retry goes on with the body.
func TestBreaks(t *testing.T) {
	a := access(t)
	var left atomic.Int64
	at := serve(t, a, directory(t), func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && left.Add(-1) >= 0 {
				w = &cut{ResponseWriter: w, left: 1500}
			}
			h.ServeHTTP(w, r)
		})
	})
	s := open(t, at, a)
	content := strings.Repeat("0123456789", 500)
	for i := range 40 {
		if err := s.Put(t.Context(), fmt.Sprintf("a/%02d", i), strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	left.Store(1)
	rc, err := s.Get(t.Context(), "a/00", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(rc)
	if cerr := rc.Close(); cerr != nil {
		t.Error(cerr)
	}
	if !errors.Is(err, blob.ErrUnreachable) || len(b) >= len(content) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	left.Store(1)
	n := 0
	for _, lerr := range s.List(t.Context(), "") {
		err = lerr
		n++
	}
	if !errors.Is(err, blob.ErrUnreachable) || n > 40 {
		t.Errorf("%d lines, %v", n, err)
	}
	left.Store(2)
	patient := blob.Retry(s, blob.RetryOptions{Min: time.Millisecond, MaxElapsed: 30 * time.Second})
	if b, err := func() ([]byte, error) {
		rc, err := patient.Get(t.Context(), "a/00", 0, -1)
		if err != nil {
			return nil, err
		}
		defer rc.Close()
		return io.ReadAll(rc)
	}(); err != nil || string(b) != content {
		t.Errorf("with Retry: %d bytes, %v", len(b), err)
	}
}

// cut is a connection that ends after so many bytes.
type cut struct {
	http.ResponseWriter
	left int
}

func (c *cut) Write(p []byte) (int, error) {
	if len(p) > c.left {
		if _, err := c.ResponseWriter.Write(p[:c.left]); err != nil {
			return 0, err
		}
		http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

func (c *cut) Unwrap() http.ResponseWriter { return c.ResponseWriter }
