// SPDX-License-Identifier: Apache-2.0

package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/s3"
	"github.com/kbcli/kbcli/internal/tests3"
)

// onlyIs holds that err wraps kind and no other sentinel; nil is none of them.
func onlyIs(t *testing.T, what string, err, kind error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
	}
	for _, k := range []error{blob.ErrNotExist, blob.ErrExist, blob.ErrUnreachable, blob.ErrDenied, blob.ErrNoSpace, blob.ErrNoBucket} {
		if errors.Is(err, k) != (k == kind) {
			t.Errorf("%s: got %v; wraps %q is %t", what, err, k, errors.Is(err, k))
		}
	}
}

// verbs calls each verb and returns its errors.
func verbs(ctx context.Context, s blob.Store) map[blob.Verb]error {
	_, stat := s.Stat(ctx, "key")
	_, get := s.Get(ctx, "key", 0, -1)
	var list error
	for _, list = range s.List(ctx, "") {
		break
	}
	return map[blob.Verb]error{
		blob.VerbStat: stat, blob.VerbGet: get, blob.VerbList: list,
		blob.VerbPut:     s.Put(ctx, "key", strings.NewReader("x")),
		blob.VerbReplace: s.Replace(ctx, "key", strings.NewReader("x")),
		blob.VerbDelete:  s.Delete(ctx, "key"),
	}
}

func TestOpenSaysWhyNot(t *testing.T) {
	plain, secure := tests3.Start(t), tests3.StartTLS(t)
	bucket := plain.NewBucket(t)
	secureBucket := secure.NewBucket(t)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	noCA := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(noCA, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	pathStyle := true
	for _, test := range []struct {
		name   string
		server *tests3.Server
		bucket string
		change func(*s3.Config)
		kind   error // nil: another error; ok: none
		ok     bool
		words  string
	}{
		{name: "as it should be", ok: true},
		{name: "region asked for", change: func(c *s3.Config) { c.Region = "" }, ok: true},
		{name: "path style", change: func(c *s3.Config) { c.PathStyle = &pathStyle }, ok: true},
		{name: "TLS", server: secure, bucket: secureBucket, ok: true},
		{name: "TLS unverified", server: secure, bucket: secureBucket, change: func(c *s3.Config) { c.CAFile, c.InsecureSkipVerify = "", true }, ok: true},
		{name: "TLS of an unknown authority", server: secure, bucket: secureBucket, change: func(c *s3.Config) { c.CAFile = "" }, kind: blob.ErrUnreachable, words: "certificate"},
		{name: "plain asked of TLS", server: secure, bucket: secureBucket, change: func(c *s3.Config) { c.Endpoint = strings.Replace(c.Endpoint, "https", "http", 1) }, kind: blob.ErrUnreachable, words: "closed the connection"},
		{name: "TLS asked of plain", change: func(c *s3.Config) { c.Endpoint = strings.Replace(c.Endpoint, "http", "https", 1) }, kind: blob.ErrUnreachable},
		{name: "no such bucket", bucket: "no-such-bucket", kind: blob.ErrNoBucket, words: "NoSuchBucket"},
		{name: "no such bucket, region asked for", bucket: "no-such-bucket", change: func(c *s3.Config) { c.Region = "" }, kind: blob.ErrNoBucket},
		{name: "unknown access key", change: func(c *s3.Config) { c.AccessKey = "nobody" }, kind: blob.ErrDenied, words: "access key"},
		{name: "wrong secret", change: func(c *s3.Config) { c.SecretKey = s3.NewSecret("hunter2") }, kind: blob.ErrDenied, words: "SignatureDoesNotMatch"},
		{name: "unsigned", change: func(c *s3.Config) { c.AccessKey, c.SecretKey = "", s3.Secret{} }, kind: blob.ErrDenied},
		{name: "wrong region", change: func(c *s3.Config) { c.Region = "elsewhere-1" }, kind: blob.ErrDenied, words: "test-1"},
		{name: "nobody listens", change: func(c *s3.Config) { c.Endpoint = "http://" + gone.Addr().String() }, kind: blob.ErrUnreachable, words: "refused"},
		{name: "no such host", change: func(c *s3.Config) { c.Endpoint = "http://no-such-host.invalid" }, kind: blob.ErrUnreachable, words: "no-such-host"},
		{name: "no bucket", change: func(c *s3.Config) { c.Bucket = "" }, words: "no bucket"},
		{name: "bad bucket", change: func(c *s3.Config) { c.Bucket = "_" }},
		{name: "bad prefix", change: func(c *s3.Config) { c.Prefix = "a/../b" }, words: "prefix"},
		{name: "no endpoint", change: func(c *s3.Config) { c.Endpoint, c.Region = "", "" }, words: "endpoint"},
		{name: "bad scheme", change: func(c *s3.Config) { c.Endpoint = "ftp://host" }, words: "https or http"},
		{name: "path in endpoint", change: func(c *s3.Config) { c.Endpoint += "/bucket" }, words: "host and port"},
		{name: "secret without key", change: func(c *s3.Config) { c.AccessKey = "" }, words: "without an access key"},
		{name: "password in endpoint", change: func(c *s3.Config) { c.Endpoint = "https://user:hunter2@host" }, words: "URL"},
		{name: "no authorities", server: secure, bucket: secureBucket, change: func(c *s3.Config) { c.CAFile = noCA }, words: "no PEM"},
		{name: "no file of authorities", server: secure, bucket: secureBucket, change: func(c *s3.Config) { c.CAFile += ".absent" }, words: "read authorities"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server, name := plain, bucket
			if test.server != nil {
				server = test.server
			}
			if test.bucket != "" {
				name = test.bucket
			}
			c := config(server, name)
			if test.change != nil {
				test.change(&c)
			}
			s, err := s3.Open(t.Context(), c)
			if test.ok {
				if err != nil {
					t.Fatal(err)
				}
				if err := blob.CheckPut(t.Context(), s); err != nil {
					t.Error(err)
				}
				s.Close()
				return
			}
			onlyIs(t, "open", err, test.kind)
			if err == nil {
				return
			}
			if !strings.Contains(err.Error(), test.words) {
				t.Errorf("got %q, want it to say %q", err, test.words)
			}
			for _, secret := range []string{server.SecretKey, "hunter2"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error shows a secret: %v", err)
				}
			}
		})
	}
}

func TestBucketThatGoes(t *testing.T) {
	server := tests3.Start(t)
	bucket := server.NewBucket(t)
	s := open(t, config(server, bucket))
	if err := os.RemoveAll(filepath.Join(server.Dir, bucket)); err != nil {
		t.Fatal(err)
	}
	for verb, err := range verbs(t.Context(), s) {
		onlyIs(t, string(verb), err, blob.ErrNoBucket)
	}
}

func TestServerThatDies(t *testing.T) {
	server := tests3.Start(t)
	s := open(t, config(server, server.NewBucket(t)))
	if err := s.Put(t.Context(), "there", strings.NewReader("content")); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	for verb, err := range verbs(t.Context(), s) {
		onlyIs(t, string(verb), err, blob.ErrUnreachable)
	}
	server.Restart()
	if b, err := blob.ReadAll(t.Context(), s, "there", 100); err != nil || string(b) != "content" {
		t.Errorf("after the restart: %q, %v", b, err)
	}

	// With Retry the caller does not notice.
	server.Stop()
	failed := make(chan struct{}, 100)
	r := blob.Retry(s, blob.RetryOptions{Max: 200 * time.Millisecond, Notify: func(blob.RetryEvent) { failed <- struct{}{} }})
	done := make(chan error, 1)
	go func() { done <- r.Put(t.Context(), "new", strings.NewReader("content")) }()
	<-failed
	server.Restart()
	if err := <-done; err != nil {
		t.Errorf("put while the server was away: %v", err)
	}
}

// between puts a proxy in front of a server.
func between(t *testing.T, server *tests3.Server, change func(*httputil.ProxyRequest)) string {
	t.Helper()
	u, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	p := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = u.Scheme, u.Host
		r.Out.Host = r.In.Host // which is signed
		change(r)
	}})
	t.Cleanup(p.Close)
	return p.URL
}

func TestDamageOnTheWayIsRefused(t *testing.T) {
	server := tests3.Start(t)
	bucket := server.NewBucket(t)
	c := config(server, bucket)
	c.Endpoint = between(t, server, func(r *httputil.ProxyRequest) {
		if r.In.Method != http.MethodPut {
			return
		}
		b, err := io.ReadAll(r.In.Body)
		if err != nil {
			t.Errorf("read: %v", err)
		}
		b[len(b)/2] ^= 1
		r.Out.Body = io.NopCloser(bytes.NewReader(b))
	})
	s := open(t, c)
	for _, put := range []func(context.Context, string, blob.Body) error{s.Put, s.Replace} {
		onlyIs(t, "put of a flipped bit", put(t.Context(), "key", strings.NewReader(strings.Repeat("x", 100_000))), blob.ErrUnreachable)
	}
	if _, err := s.Stat(t.Context(), "key"); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("the damaged object: %v", err)
	}
}

// fake is a server that answers each request, in order, with one of answers,
// the last one for all further ones. A listing is answered as of a bucket that
// is there, unless bucketGone.
func fake(t *testing.T, answers ...http.HandlerFunc) (*s3.Store, *atomic.Int64) {
	t.Helper()
	var n atomic.Int64
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("list-type") {
			fmt.Fprint(w, `<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>`)
			return
		}
		i := n.Add(1)
		answers[min(int(i), len(answers))-1](w, r)
	})
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	s := open(t, s3.Config{
		Endpoint: server.URL, Region: "r", Bucket: "bucket", AccessKey: "a", SecretKey: s3.NewSecret("s"), Stall: 300 * time.Millisecond,
	})
	return s, &n
}

func status(code int, words string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(code)
		if words != "" {
			fmt.Fprintf(w, `<Error><Code>%s</Code><Message>words of the server</Message><RequestId>R17</RequestId></Error>`, words)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, test := range []struct {
		status int
		code   string
		kind   error
	}{
		{400, "BadDigest", blob.ErrUnreachable},
		{400, "RequestTimeout", blob.ErrUnreachable},
		{400, "InvalidArgument", nil},
		{401, "", blob.ErrDenied},
		{403, "", blob.ErrDenied},
		{403, "QuotaExceeded", blob.ErrNoSpace},
		{403, "RequestTimeTooSkewed", blob.ErrDenied},
		{404, "NoSuchBucket", blob.ErrNoBucket},
		{405, "MethodNotAllowed", nil},
		{408, "", blob.ErrUnreachable},
		{409, "ConditionalRequestConflict", blob.ErrUnreachable},
		{429, "", blob.ErrUnreachable},
		{500, "InternalError", blob.ErrUnreachable},
		{501, "NotImplemented", nil},
		{502, "", blob.ErrUnreachable},
		{503, "SlowDown", blob.ErrUnreachable},
		{507, "", blob.ErrNoSpace},
		{507, "XMinioStorageFull", blob.ErrNoSpace},
	} {
		t.Run(fmt.Sprintf("%d %s", test.status, test.code), func(t *testing.T) {
			t.Parallel() // the library pauses after each failure
			s, _ := fake(t, status(test.status, test.code))
			errs := verbs(t.Context(), s)
			for _, verb := range []blob.Verb{blob.VerbPut, blob.VerbReplace, blob.VerbGet, blob.VerbDelete} {
				err := errs[verb]
				onlyIs(t, string(verb), err, test.kind)
				if test.code == "" || verb == blob.VerbDelete || err == nil {
					continue
				}
				for _, words := range []string{test.code, "words of the server", fmt.Sprint(test.status), "R17"} {
					if !strings.Contains(err.Error(), words) {
						t.Errorf("%s: %q does not say %q", verb, err, words)
					}
				}
			}
		})
	}
}

func TestAbsenceOfWhatIsNoS3(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	_, err := s3.Open(t.Context(), s3.Config{Endpoint: server.URL, Region: "r", Bucket: "bucket"})
	onlyIs(t, "open", err, blob.ErrNoBucket)

	// It turns into something else after it was opened.
	var gone atomic.Bool
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if gone.Load() {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, `<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>`)
	}))
	defer server.Close()
	s := open(t, s3.Config{Endpoint: server.URL, Region: "r", Bucket: "bucket"})
	gone.Store(true)
	for verb, err := range verbs(t.Context(), s) {
		onlyIs(t, string(verb), err, blob.ErrNoBucket)
	}
}

func TestOneTry(t *testing.T) {
	for _, answer := range []http.HandlerFunc{status(503, "SlowDown"), status(500, "InternalError"), hangUp} {
		s, n := fake(t, answer)
		onlyIs(t, "put", s.Put(t.Context(), "key", strings.NewReader("x")), blob.ErrUnreachable)
		if n.Load() != 1 {
			t.Errorf("a put was sent %d times", n.Load())
		}
	}
}

func hangUp(w http.ResponseWriter, _ *http.Request) {
	panic(http.ErrAbortHandler)
}

func TestConflictSettles(t *testing.T) {
	conflict := status(409, "ConditionalRequestConflict")
	s, n := fake(t, conflict, conflict, status(412, "PreconditionFailed"))
	onlyIs(t, "put", s.Put(t.Context(), "key", strings.NewReader("x")), blob.ErrExist)
	if n.Load() != 3 {
		t.Errorf("%d requests, want 3", n.Load())
	}
	s, _ = fake(t, conflict, status(200, ""))
	if err := s.Put(t.Context(), "key", strings.NewReader("x")); err != nil {
		t.Error(err)
	}
}

func TestPutAsksForAbsence(t *testing.T) {
	var got []string
	s, _ := fake(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		h := r.Header
		got = append(got, fmt.Sprintf("%s %s if-none-match=%q length=%d md5=%t sha256=%d",
			r.Method, r.URL.Path, h.Get("If-None-Match"), r.ContentLength, h.Get("Content-Md5") != "", len(h.Get("X-Amz-Content-Sha256"))))
	})
	big := bytes.NewReader(make([]byte, 20<<20)) // over what the library sends in parts
	for _, err := range []error{s.Put(t.Context(), "a/b", big), s.Replace(t.Context(), "a/b", strings.NewReader(""))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		`PUT /bucket/a/b if-none-match="*" length=20971520 md5=true sha256=64`,
		`PUT /bucket/a/b if-none-match="" length=0 md5=true sha256=64`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestBrokenBodies(t *testing.T) {
	now := time.Now().UTC().Format(http.TimeFormat)
	answer := func(code int, header map[string]string, body string, then func()) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Last-Modified", now)
			w.Header().Set("Etag", `"e"`)
			for k, v := range header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(code)
			io.WriteString(w, body)
			w.(http.Flusher).Flush()
			if then != nil {
				then()
			}
		}
	}
	abort := func() { panic(http.ErrAbortHandler) }
	stall := func() { time.Sleep(time.Second) }
	for _, test := range []struct {
		name           string
		offset, length int64
		answer         http.HandlerFunc
		got            string
		kind           error // of the error after got; nil: another one
		ok             bool
	}{
		{"whole", 0, -1, answer(200, map[string]string{"Content-Length": "5"}, "abcde", nil), "abcde", nil, true},
		{"range", 1, 3, answer(206, map[string]string{"Content-Length": "3", "Content-Range": "bytes 1-3/5"}, "bcd", nil), "bcd", nil, true},
		{"range cut at the end", 3, 10, answer(206, map[string]string{"Content-Length": "2", "Content-Range": "bytes 3-4/5"}, "de", nil), "de", nil, true},
		{"cut", 0, -1, answer(200, map[string]string{"Content-Length": "5"}, "abc", abort), "abc", blob.ErrUnreachable, false},
		{"range cut off", 1, 3, answer(206, map[string]string{"Content-Length": "3", "Content-Range": "bytes 1-3/5"}, "b", abort), "b", blob.ErrUnreachable, false},
		{"chunked and cut", 1, 3, answer(206, map[string]string{"Content-Range": "bytes 1-3/5"}, "b", nil), "b", blob.ErrUnreachable, false},
		{"stalled", 0, -1, answer(200, map[string]string{"Content-Length": "5"}, "ab", stall), "ab", blob.ErrUnreachable, false},
		{"no size", 0, -1, answer(200, nil, "abcde", nil), "", nil, false},
		{"range not heeded", 1, 3, answer(200, map[string]string{"Content-Length": "5"}, "abcde", nil), "", nil, false},
		{"another range", 1, 3, answer(206, map[string]string{"Content-Length": "3", "Content-Range": "bytes 2-4/5"}, "cde", nil), "", nil, false},
		{"a longer range", 1, 3, answer(206, map[string]string{"Content-Length": "4", "Content-Range": "bytes 1-4/5"}, "bcde", nil), "", nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, _ := fake(t, test.answer)
			rc, err := s.Get(t.Context(), "key", test.offset, test.length)
			var got []byte
			if err == nil {
				got, err = io.ReadAll(rc)
				rc.Close()
			}
			if string(got) != test.got {
				t.Errorf("got %q, want %q", got, test.got)
			}
			if test.ok && err != nil {
				t.Error(err)
			}
			if !test.ok {
				onlyIs(t, "get", err, test.kind)
			}
		})
	}
}

func TestStall(t *testing.T) {
	release := make(chan struct{})
	hang := func(http.ResponseWriter, *http.Request) { <-release }
	s, _ := fake(t, hang)
	t.Cleanup(func() { close(release) }) // before the server's own cleanup
	big := bytes.NewReader(make([]byte, 32<<20))
	for what, do := range map[string]func() error{
		"answer":         func() error { return s.Replace(t.Context(), "key", strings.NewReader("x")) },
		"upload":         func() error { return s.Replace(t.Context(), "key", big) },
		"head of a body": func() error { _, err := s.Get(t.Context(), "key", 0, -1); return err },
	} {
		start := time.Now()
		onlyIs(t, what, do(), blob.ErrUnreachable)
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: given up after %s", what, d)
		}
	}
}

// A body that is slow by itself is no stall.
func TestLimitIsNoStall(t *testing.T) {
	s, _ := fake(t, status(200, ""))
	slow := blob.Limit(s, 20_000, 0) // half a second of a body for each 10 kB
	start := time.Now()
	if err := slow.Put(t.Context(), "key", bytes.NewReader(make([]byte, 20_000))); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d < 900*time.Millisecond || d > 5*time.Second {
		t.Errorf("took %s, want about 1 s: what is read for the checksums does not count", d)
	}
}

func TestListOutOfOrder(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `<ListBucketResult><IsTruncated>false</IsTruncated>
			<Contents><Key>a/b</Key><Size>1</Size></Contents><Contents><Key>a/folder/</Key></Contents>
			<Contents><Key>a-b</Key><Size>1</Size></Contents></ListBucketResult>`)
	}))
	defer server.Close()
	s := open(t, s3.Config{Endpoint: server.URL, Region: "r", Bucket: "bucket"})
	var got []string
	var last error
	for info, err := range s.List(t.Context(), "") {
		if last = err; err == nil {
			got = append(got, info.Key)
		}
	}
	if diff := cmp.Diff([]string{"a/b"}, got); diff != "" || last == nil {
		t.Errorf("%v, keys (-want +got):\n%s", last, diff)
	}
}
