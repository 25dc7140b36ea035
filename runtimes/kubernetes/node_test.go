// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/remotecommand"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes/ask"
)

// aServer is a PostgreSQL with a password, as the operator will make one, without Patroni.
const aServer = `
{apiVersion: v1, kind: Secret, metadata: {name: my-pg-postgresql-superuser, namespace: reach}, stringData: {username: postgres, password: "s3 'cret"}}
---
apiVersion: v1
kind: Pod
metadata:
  name: my-pg-postgresql-0
  namespace: reach
  labels: {app.kubernetes.io/instance: my-pg, app.kubernetes.io/name: postgresql, app.kubernetes.io/managed-by: kbcli, kubeblocks.io/role: master}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: postgresql
      image: kbcli.test/postgresql:15
      imagePullPolicy: Never
      env: [{name: PGDATA, value: /tmp/pg}, {name: PW, valueFrom: {secretKeyRef: {name: my-pg-postgresql-superuser, key: password}}}]
      command: [bash, -c]
      args:
        - |
          set -e
          initdb -U postgres -A scram-sha-256 --pwfile=<(echo "$PW")
          exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp
      readinessProbe: {exec: {command: [pg_isready, -h, 127.0.0.1]}, periodSeconds: 1}
      resources: {requests: {cpu: 50m, memory: 64Mi}}
    - name: kbcli
      image: kbcli.test/postgresql:15
      imagePullPolicy: Never
      env: [{name: PATH, value: "/tmp/bin:/usr/bin:/bin"}]
      command: [bash, -c]
      args:
        - |
          mkdir -p /tmp/bin && cat >/tmp/bin/kbcli <<'EOF' && chmod +x /tmp/bin/kbcli && exec sleep 600
          #!/bin/bash
          read -r question
          case $question in
            *'"lineages"'*) echo '{"fault":{"words":"this release does not know the question \"lineages\""}}' ;;
            *'"clock"'*) echo '{"release":"0.9","fault":{"kind":"UnknownTopic","data":{"Topic":"clock"},"words":"no"}}' ;;
            *'"windows"'*) echo 'error: unknown command "answer" for "kbcli"' >&2; exit 2 ;;
            *'"history"'*) echo '{"more":true,"events":[{"LSN":"0/3000028"}]}'; echo it was killed >&2; exit 137 ;;
            *'"verify"'*) echo '{"more":true,"progress":{"done":1,"total":2}}'; cat; echo over >/tmp/over ;;
            *'"expiry"'*) printf '%3000000s' ''; echo '{"expiry":{"Repository":"r"}}' ;;
            *) echo why >&2; exit 3 ;;
          esac
          EOF
`

// TestReach: SQL, psql, logs and commands through the API server of a real node.
func TestReach(t *testing.T) {
	c := testkube.Node(t)
	r := openContext(t, c)
	c.Kubectl(t, "create", "namespace", "reach")
	t.Cleanup(func() { c.Kubectl(t, "delete", "namespace", "reach", "--wait=false") })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if _, err := c.Try("", "-n", "reach", "get", "serviceaccount", "default"); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	c.Apply(t, aServer)
	c.Kubectl(t, "-n", "reach", "wait", "pod/my-pg-postgresql-0", "--for=condition=Ready", "--timeout=180s")
	my := &v1alpha1.Cluster{}
	my.Namespace, my.Name = "reach", "my-pg"

	conn, err := r.Admin(t.Context(), my, "postgres")
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := conn.QueryRow(t.Context(), "select sum(length(repeat('x', 1000) || i)) from generate_series(1, 5000) i").Scan(&n); err != nil || n < 5000000 {
		t.Errorf("%d, %v", n, err)
	}
	// The end of a context ends what goes on, as on a socket.
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := conn.Exec(ctx, "select pg_sleep(60)"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}

	psql, err := r.Psql(t.Context(), my, "", "postgres")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(strings.Join(psql.Args, " "), "cret") || psql.Release == nil {
		t.Errorf("%q", psql.Args)
	}
	dir := psql.Args[1]
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	for range 2 { // psql's \c connects again
		cmd := exec.Command(psql.Path, append(psql.Args, "-XAtc", "select current_user, repeat('y', 3)")...)
		cmd.Env = append(os.Environ(), psql.Env...)
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "postgres|yyy" {
			t.Errorf("%s, %v", out, err)
		}
	}
	psql.Release()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}

	var lines strings.Builder
	if err := r.Logs(t.Context(), my, runtimes.LogOptions{Tail: -1}, &lines); err != nil || !strings.Contains(lines.String(), "database system is ready to accept connections") {
		t.Errorf("%v\n%s", err, lines.String())
	}
	answers(t, r)
	// A port that nobody listens on is an error, and not a wait.
	if dead, err := (tunnel{r, "reach", "my-pg-postgresql-0", 1}).Dial(t.Context()); err == nil {
		_, err = dead.Read(make([]byte, 1))
		if err == nil {
			t.Error("read from nobody")
		}
		dead.Close()
	}
}

// answers: what a kbcli in a pod may answer, or not, and that it ends when nobody wants
// its answer any more.
func answers(t *testing.T, r *Runtime) {
	t.Helper()
	at := place{"reach", "my-pg-postgresql-0", "kbcli"}
	one := func(topic ask.Topic) (ask.Answer, error) {
		return r.put(t.Context(), at, ask.Question{Topic: topic}, func(ask.Answer) error { return nil })
	}
	for topic, release := range map[ask.Topic]string{ask.Lineages: "", ask.Clock: "0.9", ask.Windows: ""} {
		var older *OlderError
		if _, err := one(topic); !errors.As(err, &older) || *older != (OlderError{"reach/my-pg-postgresql-0", release, string(topic)}) {
			t.Errorf("%s: %T %v", topic, err, err)
		}
	}
	if _, err := one("weather"); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("%v", err)
	}
	// an answer that ends in the middle is an error, and what came of it did come
	var lost *LostError
	n := 0
	_, err := r.put(t.Context(), at, ask.Question{Topic: ask.History}, func(a ask.Answer) error { n += len(a.Events); return nil })
	if !errors.As(err, &lost) || n != 1 || !strings.Contains(err.Error(), "it was killed") {
		t.Errorf("%d events, %v", n, err)
	}
	if a, err := one(ask.Expiry); err != nil || a.Expiry == nil || a.Expiry.Repository != "r" {
		t.Errorf("a long line: %+v, %v", a, err)
	}
	// whoever hangs up ends the far side
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := r.put(ctx, at, ask.Question{Topic: ask.Verify}, func(ask.Answer) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		var out strings.Builder
		err := r.stream(t.Context(), at, []string{"cat", "/tmp/over"}, remotecommand.StreamOptions{Stdout: &out, Stdin: strings.NewReader("")})
		if err == nil && strings.TrimSpace(out.String()) == "over" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("what verified goes on: %q, %v", out.String(), err)
		}
	}
}
