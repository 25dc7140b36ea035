// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Cluster is a Kubernetes and how its administrator reaches it from this machine. It may
// be used by several goroutines.
type Cluster struct {
	Kubeconfig string // a file with all that a client needs
	Host       string // "https://127.0.0.1:12345"
	CAFile     string // PEM of the authority that signed the API server's certificate
	Token      string // of a member of system:masters

	dir   string // everything of this run
	parts string // the programs
}

// KubectlProgram is the path of kubectl.
func (c *Cluster) KubectlProgram() string { return filepath.Join(c.parts, "kubectl") }

// Kubectl runs kubectl as the administrator and returns what it prints.
func (c *Cluster) Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := c.Try("", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Apply creates or changes the objects of one or more YAML documents.
func (c *Cluster) Apply(t testing.TB, yaml string) {
	t.Helper()
	if _, err := c.Try(yaml, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// Try runs kubectl with stdin. The error has what it said.
func (c *Cluster) Try(stdin string, args ...string) (string, error) {
	cmd := exec.Command(c.KubectlProgram(), args...)
	cmd.Env = append(plainEnv(c.dir), "KUBECONFIG="+c.Kubeconfig)
	cmd.Stdin = strings.NewReader(stdin)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return out.String(), nil
}

// waitReady returns when the API server says that it is ready, or gives up when failed
// returns an error or the time is over.
func (c *Cluster) waitReady(failed func() error, limit time.Duration) error {
	authority, err := os.ReadFile(c.CAFile)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return fmt.Errorf("%s has no certificate", c.CAFile)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		err := askReady(ctx, client, c.Host+"/readyz", c.Token)
		if err == nil {
			return nil
		}
		if failure := failed(); failure != nil {
			return failure
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready in %v: %w", limit, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func askReady(ctx context.Context, client *http.Client, url, token string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body)))
	}
	return nil
}

// logTails is the end of each log of a run.
func logTails(dir string) string {
	names, err := filepath.Glob(filepath.Join(dir, "log", "*.log"))
	if err != nil {
		return err.Error()
	}
	const most = 1500
	var all strings.Builder
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil || len(text) == 0 {
			continue
		}
		if len(text) > most {
			text = text[len(text)-most:]
		}
		fmt.Fprintf(&all, "== %s\n%s\n", filepath.Base(name), text)
	}
	return all.String()
}

// SnapshotDefinitions are the CRDs of VolumeSnapshots, which a Node has and a Control has
// not.
func (c *Cluster) SnapshotDefinitions() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(c.parts, "crds", "*.yaml"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		out = append(out, string(b))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("there are no definitions in %s", c.parts)
	}
	return out, nil
}
