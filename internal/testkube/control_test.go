// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const startedEnv = "KBCLI_TESTKUBE_STARTED"

// TestMain: the test binary is also a process that starts an API server, says where it
// is, and is killed.
func TestMain(m *testing.M) {
	if os.Getenv(startedEnv) == "" {
		os.Exit(m.Run())
	}
	c, err := control()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(c.dir)
	time.Sleep(time.Hour)
}

func TestControl(t *testing.T) {
	c := Control(t)
	c.Kubectl(t, "create", "namespace", "one")
	c.Apply(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: colours, namespace: one}, data: {sky: blue}}")
	if got := c.Kubectl(t, "-n", "one", "get", "configmap", "colours", "-o", "jsonpath={.data.sky}"); got != "blue" {
		t.Errorf("the sky is %q", got)
	}
	if Control(t) != c {
		t.Error("the next test got another one")
	}
}

func TestControlVersion(t *testing.T) {
	var v struct {
		ServerVersion struct {
			GitVersion string `json:"gitVersion"`
		} `json:"serverVersion"`
	}
	if err := json.Unmarshal([]byte(Control(t).Kubectl(t, "version", "-o", "json")), &v); err != nil {
		t.Fatal(err)
	}
	if want := "v" + kubernetesVersion; v.ServerVersion.GitVersion != want {
		t.Errorf("it says it is %s, not %s", v.ServerVersion.GitVersion, want)
	}
}

func TestControlGuards(t *testing.T) {
	c := Control(t)
	c.Kubectl(t, "create", "namespace", "guarded")
	_, err := c.Try("", "-n", "guarded", "--as", "nobody", "get", "secrets")
	if err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("nobody may read secrets: %v", err)
	}
}

func TestControlEndsWithKilledParent(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), startedEnv+"=1")
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	dir := strings.TrimSpace(line)
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, err := os.Stat(dir)
		using, listErr := processesOf(dir)
		if listErr != nil {
			t.Fatal(listErr)
		}
		if errors.Is(err, fs.ErrNotExist) && len(using) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after its parent was killed: %s: %v, processes %v", dir, err, using)
		}
	}
}
