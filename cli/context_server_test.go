// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// aServer is an API server that counts who knocks, and its kubeconfig. Nobody says more than
// that it is there.
func aServer(t *testing.T, answer http.HandlerFunc) (kubeconfig string, knocks *atomic.Int64) {
	t.Helper()
	knocks = &atomic.Int64{}
	s := httptest.NewUnstartedServer(answer)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			knocks.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return writeFile(t, filepath.Join(t.TempDir(), "config"), `{apiVersion: v1, kind: Config, current-context: prod,
clusters: [{name: p, cluster: {server: "`+s.URL+`"}}], users: [{name: me, user: {token: abc}}], contexts: [{name: prod, context: {cluster: p, user: me}}]}`), knocks
}

// typing is one command line with an environment of its own.
func typing(t *testing.T, env map[string]string, args ...string) (out, errs string, code int) {
	t.Helper()
	var o, e strings.Builder
	a := newApp(Stdio{In: strings.NewReader(""), Out: &o, Err: &e})
	a.env = func(k string) string { return env[k] }
	code = a.run(t.Context(), args)
	return o.String(), e.String(), code
}

// TestNobodyChose: a kubeconfig that lies about is asked nothing, whatever is typed or
// completed; chosen it is.
func TestNobodyChose(t *testing.T) {
	kubeconfig, knocks := aServer(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	t.Setenv("KUBECONFIG", kubeconfig) // libraries look there by themselves
	t.Setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
	env := map[string]string{"HOME": t.TempDir(), "KUBECONFIG": kubeconfig, "KBCLI_STATE_DIR": t.TempDir(), "KBCLI_SUPERVISOR": "process"}
	for _, line := range []string{
		"__complete cluster describe ", "__complete cluster list -n ", "__complete --context ", "__complete cluster connect x --as-user ",
		"__complete cluster restore n --source-cluster ", "__complete context use ", "context list", "context current", "cluster list", "backuprepo list", "addon list",
		"cluster describe x", "cluster history x", "doctor", "version",
	} {
		typing(t, env, strings.Split(line, " ")...)
		if n := knocks.Swap(0); n > 0 {
			t.Errorf("kbcli %s: the API server was asked %d times, and nobody chose it", line, n)
		}
	}
	if out, _, _ := typing(t, env, "__complete", "--context", ""); !strings.Contains(out, "prod") {
		t.Errorf("its name is not offered: %q", out)
	}
	if _, _, _ = typing(t, env, "__complete", "--context", "prod", "cluster", "describe", ""); knocks.Load() == 0 {
		t.Error("the context that was chosen was not asked")
	}
}

// TestBadServers: what is said of a server that refuses, that is not there, and that says
// nothing.
func TestBadServers(t *testing.T) {
	expired, _ := aServer(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	mute, _ := aServer(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	gone := writeFile(t, filepath.Join(t.TempDir(), "config"), `{apiVersion: v1, kind: Config, clusters: [{name: p, cluster: {server: "http://127.0.0.1:1"}}],
users: [{name: me, user: {token: abc}}], contexts: [{name: prod, context: {cluster: p, user: me}}]}`)
	plugin := writeFile(t, filepath.Join(t.TempDir(), "config"), `{apiVersion: v1, kind: Config, clusters: [{name: p, cluster: {server: "https://127.0.0.1:1"}}],
users: [{name: me, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-login, interactiveMode: Never}}}], contexts: [{name: prod, context: {cluster: p, user: me}}]}`)
	env := map[string]string{"HOME": t.TempDir()}
	for _, c := range []struct{ name, kubeconfig, words string }{
		{"expired", expired, "hint: the Kubernetes API does not know who you are: the credentials of the kubeconfig are wrong, or have expired\n"},
		{"gone", gone, "connection refused\nhint: the context says where it is\nnext: kbcli context list\n"},
		{"plugin", plugin, "no-such-login"},
	} {
		for _, line := range []string{"cluster list", "cluster describe x", "cluster history x", "doctor", "cluster logs x"} {
			_, errs, code := typing(t, env, append(strings.Fields(line), "--context", "prod", "--kubeconfig", c.kubeconfig)...)
			if code != exitFailed || !strings.HasPrefix(errs, "error: ") || !strings.Contains(errs, c.words) {
				t.Errorf("%s: kbcli %s: code %d\n%s", c.name, line, code, errs)
			}
		}
	}
	// a shell is not kept waiting
	done := make(chan struct{})
	go func() {
		defer close(done)
		typing(t, env, "__complete", "--context", "prod", "--kubeconfig", mute, "cluster", "describe", "")
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("completion waits for a server that says nothing")
	}
}
