// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes"
	"github.com/kbcli/kbcli/runtimes/local"
)

const twoContexts = `apiVersion: v1
kind: Config
current-context: prod
clusters:
- name: p
  cluster: {server: "https://prod.example:6443"}
- name: s
  cluster: {server: "https://staging.example:6443"}
contexts:
- name: prod
  context: {cluster: p, user: me}
- name: staging
  context: {cluster: s, user: me, namespace: shop}
- name: local
  context: {cluster: p, user: me}
users:
- name: me
  user: {token: abc}
`

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestContexts: what is asked first, what is refused, and that a kubeconfig changes nothing
// by being there.
func TestContexts(t *testing.T) {
	b := newBench(t)
	home := t.TempDir()
	kubeconfig := writeFile(t, filepath.Join(home, ".kube", "config"), twoContexts)
	b.env["HOME"] = home
	refused := func(name, hint string) string {
		return "error: there is no context \"" + name + "\"\nhint: " + hint + "\nnext: kbcli context list\n"
	}
	b.want("local\n", "", 0, "context", "current")
	const list = `NAME      CURRENT   PLACE                          TYPE
local     true      /state                         machine
prod      false     https://prod.example:6443      kubernetes
staging   false     https://staging.example:6443   kubernetes
`
	b.want(list, "", 0, "context", "list", "--state-dir", "/state")
	b.want("context/local\ncontext/prod\ncontext/staging\n", "", 0, "context", "list", "--state-dir", "/state", "-o", "name")
	b.want("", refused("prd", `did you mean "prod"?`), exitUsage, "context", "use", "prd")
	b.want("Context local is used\n", "", 0, "context", "use", "local")
	file := filepath.Join(home, ".config", "kbcli", "config.yaml")
	written := func(want string) {
		t.Helper()
		if text, err := os.ReadFile(file); err != nil || string(text) != want {
			t.Errorf("%q, %v", text, err)
		}
	}
	written("context: local\n")
	b.want("prod\n", "", 0, "context", "current", "--context", "prod")

	// What is written down is found where it was found, wherever $KUBECONFIG points later.
	b.want("Context staging is used\n", "", 0, "context", "use", "staging")
	written("context: staging\nkubeconfig: " + kubeconfig + "\n")
	b.env["KUBECONFIG"] = writeFile(t, filepath.Join(home, "other"), strings.ReplaceAll(twoContexts, "example", "other.example"))
	b.want("staging\n", "", 0, "context", "current")
	if out, _, _ := b.run("context", "list"); !strings.Contains(out, "staging   true      https://staging.example:6443") {
		t.Errorf("another file was read:\n%s", out)
	}
	// Asked for by name it is that of $KUBECONFIG, and of --kubeconfig before that.
	if out, _, _ := b.run("context", "list", "--context", "prod"); !strings.Contains(out, "prod      true      https://prod.other.example:6443") {
		t.Errorf("$KUBECONFIG was not read:\n%s", out)
	}
	if out, _, _ := b.run("context", "list", "--context", "prod", "--kubeconfig", kubeconfig); !strings.Contains(out, "prod      true      https://prod.example:6443") {
		t.Errorf("--kubeconfig was not read:\n%s", out)
	}
	b.env["KUBECONFIG"] = ""
	b.want("Context local is used\n", "", 0, "context", "use", "local")
	written("context: local\n")

	nothing := "there is local, which is this machine; no context of a Kubernetes was found in " + filepath.Join(home, "none")
	b.want("", refused("prod", nothing), exitUsage, "context", "current", "--context", "prod", "--kubeconfig", filepath.Join(home, "none"))
	b.env["KBCLI_CONTEXT"] = "elsewhere"
	b.want("", refused("elsewhere", "it is what $KBCLI_CONTEXT says"), exitUsage, "context", "current")
	b.want("local\n", "", 0, "context", "current", "--context", "local")
	b.env["KBCLI_CONTEXT"] = ""
	writeFile(t, file, "context: elsewhere\nother: 1\n")
	b.want("", refused("elsewhere", "it is what "+file+" says"), exitUsage, "context", "current")
	b.want("Context local is used\n", "", 0, "context", "use", "local")
	written("context: local\nother: 1\n")
	writeFile(t, file, "context: [\n")
	if _, errs, code := b.run("context", "current"); code != exitUsage || !strings.Contains(errs, "next: kbcli context use local\n") {
		t.Errorf("code %d, %q", code, errs)
	}
}

// TestContextOpens: which runtime a verb gets. The one that matters: a kubeconfig, even
// with a current context, in $KUBECONFIG or in its usual place, is this machine all the same.
func TestContextOpens(t *testing.T) {
	home := t.TempDir()
	kubeconfig := writeFile(t, filepath.Join(home, ".kube", "config"), twoContexts)
	for _, c := range []struct {
		name  string
		args  []string
		env   map[string]string
		wrote string
		want  string
	}{
		{name: "nobody said anything", want: "local"},
		{name: "$KUBECONFIG alone", env: map[string]string{"KUBECONFIG": kubeconfig}, want: "local"},
		{name: "in a pod", env: map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}, want: "local"},
		{name: "a context of the kubeconfig is called local", args: []string{"--context", "local"}, want: "local"},
		{name: "--kubeconfig alone", args: []string{"--kubeconfig", kubeconfig}, want: "refused"},
		{name: "--kubeconfig and local", args: []string{"--kubeconfig", kubeconfig, "--context", "local"}, want: "refused"},
		{name: "--context", args: []string{"--context", "prod"}, want: "kubernetes"},
		{name: "--context of --kubeconfig", args: []string{"--context", "prod", "--kubeconfig", kubeconfig}, env: map[string]string{"HOME": ""}, want: "kubernetes"},
		{name: "$KBCLI_CONTEXT", env: map[string]string{"KBCLI_CONTEXT": "prod"}, want: "kubernetes"},
		{name: "written down", wrote: "context: prod\nkubeconfig: " + kubeconfig + "\n", want: "kubernetes"},
		{name: "written down and overruled", wrote: "context: prod\nkubeconfig: " + kubeconfig + "\n", args: []string{"--context", "local"}, want: "local"},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := map[string]string{"HOME": home, "XDG_CONFIG_HOME": t.TempDir()}
			for k, v := range c.env {
				env[k] = v
				t.Setenv(k, v) // libraries look there by themselves
			}
			if c.wrote != "" {
				writeFile(t, filepath.Join(env["XDG_CONFIG_HOME"], "kbcli", "config.yaml"), c.wrote)
			}
			a := newApp(Stdio{In: strings.NewReader(""), Out: new(strings.Builder), Err: new(strings.Builder)})
			a.env = func(k string) string { return env[k] }
			root := newRoot(a)
			if err := root.ParseFlags(append(c.args, "--state-dir", t.TempDir())); err != nil {
				t.Fatal(err)
			}
			rt, err := openRuntime(t.Context(), a)
			if got := kindOfRuntime(rt, err); got != c.want {
				t.Errorf("got %s (%v), want %s", got, err, c.want)
			}
		})
	}
}

func kindOfRuntime(rt runtimes.Runtime, err error) string {
	if err != nil {
		return "refused"
	}
	switch rt.(type) {
	case *local.Runtime:
		return "local"
	case *kubernetes.Runtime:
		return "kubernetes"
	}
	return "another"
}
