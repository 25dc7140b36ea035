// SPDX-License-Identifier: Apache-2.0

package tests3

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sys/unix"
)

// Server is an S3 server of one test.
type Server struct {
	Endpoint  string // URL: "http://127.0.0.1:12345"
	Region    string
	AccessKey string
	SecretKey string
	CAFile    string // PEM of the authority that signed the server; "" without TLS
	Dir       string // a bucket is a directory here, an object a file in it

	t      testing.TB // nil where there is none
	log    string     // of requests
	args   []string
	health string // path that only this server answers
	client *http.Client

	mu      sync.Mutex
	process *process // nil while stopped
}

// Options say which server Up starts.
type Options struct {
	Dir    string // an empty directory for what it stores, its keys and its log
	Secure bool   // TLS only, with a certificate for 127.0.0.1 and localhost signed by the authority in CAFile
	Log    bool   // write down each request, for Requests
}

// Start starts a server without TLS.
func Start(t testing.TB) *Server { return start(t, false) }

// StartTLS starts a server that speaks TLS only, with a certificate for
// 127.0.0.1 and localhost signed by the authority in CAFile.
func StartTLS(t testing.TB) *Server { return start(t, true) }

func start(t testing.TB, secure bool) *Server {
	t.Helper()
	s, err := Up(Options{Dir: t.TempDir(), Secure: secure})
	if err != nil {
		t.Fatalf("no S3 server to test with: %v", err)
	}
	s.t = t
	t.Cleanup(s.client.CloseIdleConnections)
	t.Cleanup(s.Stop)
	return s
}

// Up starts a server, which whoever calls it has to Stop.
func Up(o Options) (*Server, error) {
	bin, err := binary()
	if err != nil {
		return nil, err
	}
	s := &Server{
		Region: "test-1", AccessKey: "test-access", SecretKey: rand.Text(),
		Dir: filepath.Join(o.Dir, "buckets"), health: "/health-" + rand.Text(),
	}
	if err := os.Mkdir(s.Dir, 0o755); err != nil {
		return nil, err
	}
	transport := &http.Transport{}
	s.client = &http.Client{Transport: transport, Timeout: 5 * time.Second}

	global := []string{"--quiet", "--region", s.Region, "--health", s.health}
	if o.Log {
		s.log = filepath.Join(o.Dir, "requests.log")
		global = append(global, "--access-log", s.log)
	}
	scheme := "http"
	if o.Secure {
		scheme = "https"
		c, err := writeCertificates(o.Dir)
		if err != nil {
			return nil, fmt.Errorf("make certificates: %w", err)
		}
		s.CAFile = c.ca
		pool := x509.NewCertPool()
		pem, err := os.ReadFile(c.ca)
		if err != nil {
			return nil, err
		}
		pool.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
		global = append(global, "--cert", c.cert, "--key", c.key)
	}
	backend := []string{"posix"}
	if !hasXattr(s.Dir) {
		sidecar := filepath.Join(o.Dir, "sidecar")
		if err := os.Mkdir(sidecar, 0o755); err != nil {
			return nil, err
		}
		backend = append(backend, "--sidecar", sidecar)
	}
	backend = append(backend, s.Dir)

	// Between the choice of a port and its use somebody else may take it.
	for tries := 1; ; tries++ {
		addr, err := freeAddress()
		if err != nil {
			return nil, err
		}
		s.Endpoint = scheme + "://" + addr
		s.args = append([]string{bin, "--port", addr}, append(global, backend...)...)
		err = s.run()
		if err == nil {
			return s, nil
		}
		if tries == 5 {
			return nil, fmt.Errorf("start versitygw: %w", err)
		}
	}
}

// Requests is how many there were, of a server that writes them down.
func (s *Server) Requests() (int, error) {
	b, err := os.ReadFile(s.log)
	return bytes.Count(b, []byte("\n")), err
}

// PID is that of the process, while it runs.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.cmd.Process.Pid
}

func hasXattr(dir string) bool {
	return unix.Setxattr(dir, "user.kbcli-test", []byte("x"), 0) == nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// run starts the process and returns when it answers.
func (s *Server) run() error {
	var log lockedBuffer
	cmd := exec.Command(s.args[0], s.args[1:]...)
	// Nothing of the tester's own environment: any option of the server can be
	// set there. And the secret is on no command line.
	cmd.Env = []string{"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey}
	cmd.Stdout, cmd.Stderr = &log, &log
	p, err := startProcess(cmd)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		select {
		case <-p.done:
			return fmt.Errorf("it ended at once: %s", log.String())
		case <-time.After(10 * time.Millisecond):
		}
		if resp, err := s.client.Get(s.Endpoint + s.health); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(deadline) {
			p.kill()
			return fmt.Errorf("no answer in 30 s: %s", log.String())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process = p
	return nil
}

// Stop kills the server as a crash would, and returns when it is dead. What it
// stored stays. Stopping a stopped server does nothing.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		s.process.kill()
		s.process = nil
	}
}

// Restart stops the server if it runs and starts it again at the same Endpoint
// with what it had stored.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.run(); err != nil {
		s.t.Fatalf("restart versitygw: %v", err)
	}
}

// NewBucket makes a bucket with a name of its own.
func (s *Server) NewBucket(t testing.TB) string {
	t.Helper()
	name, err := s.MakeBucket()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// MakeBucket makes a bucket with a name of its own.
func (s *Server) MakeBucket() (string, error) {
	name := "test-" + strings.ToLower(rand.Text())
	c, err := minio.New(strings.TrimPrefix(strings.TrimPrefix(s.Endpoint, "http://"), "https://"), &minio.Options{
		Creds:     credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""),
		Secure:    s.CAFile != "",
		Transport: s.client.Transport,
		Region:    s.Region,
	})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := c.MakeBucket(ctx, name, minio.MakeBucketOptions{Region: s.Region}); err != nil {
		return "", fmt.Errorf("make bucket: %w", err)
	}
	return name, nil
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
