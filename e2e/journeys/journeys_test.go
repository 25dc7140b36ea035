// SPDX-License-Identifier: Apache-2.0

package journeys

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/internal/testpg"
	"github.com/kbcli/kbcli/internal/tests3"
)

// program is the directory of kbcli, built once.
var program string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("/tmp", "kbj-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// The user postgres runs it too, while a server recovers.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if out, err := exec.Command("../../deploy/build.sh", filepath.Join(dir, "kbcli"), "devel").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build kbcli: %v\n%s", err, out)
		return 1
	}
	program = dir
	return m.Run()
}

func TestJourneys(t *testing.T) {
	scripts := scripts(t, func(name string) bool { return !strings.HasSuffix(name, onKubernetes) })
	s3 := tests3.Start(t)
	buckets := make(chan string, len(scripts))
	for range scripts {
		buckets <- s3.NewBucket(t)
	}
	oldest, newest := testpg.Binaries(t, 13).BinDir, testpg.Binaries(t, 18).BinDir
	testscript.Run(t, testscript.Params{
		Files: scripts,
		Setup: func(env *testscript.Env) error {
			storage(env, s3, s3.Endpoint, <-buckets)
			env.Setenv("PG13_BIN", oldest)
			env.Setenv("PG18_BIN", newest)
			return setUp(env)
		},
		Cmds:                commands,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// onKubernetes ends the names of the scripts that need one.
const onKubernetes = "_kubernetes.txtar"

// TestKubernetes runs its scripts on one node, one after the other.
func TestKubernetes(t *testing.T) {
	s3 := tests3.Start(t)
	k := testkube.Node(t)
	endpoint := "http://" + k.Expose(t, strings.TrimPrefix(s3.Endpoint, "http://"))
	for _, script := range scripts(t, func(name string) bool { return strings.HasSuffix(name, onKubernetes) }) {
		testscript.Run(t, testscript.Params{
			Files: []string{script},
			Setup: func(env *testscript.Env) error {
				storage(env, s3, endpoint, s3.NewBucket(t))
				if err := setUp(env); err != nil {
					return err
				}
				env.Setenv("KUBECONFIG", k.Kubeconfig)
				env.Setenv("KBCLI_CONTEXT", strings.TrimSpace(k.Kubectl(t, "config", "current-context")))
				env.Setenv("PROVISIONER", k.Kubectl(t, "get", "storageclass", testkube.StorageClass, "-o", "jsonpath={.provisioner}"))
				env.Setenv("PATH", filepath.Dir(k.KubectlProgram())+string(os.PathListSeparator)+env.Getenv("PATH"))
				return nil
			},
			Cmds:                commands,
			RequireExplicitExec: true,
			RequireUniqueNames:  true,
		})
	}
}

// scripts are those whose names are wanted.
func scripts(t *testing.T, wanted func(name string) bool) []string {
	t.Helper()
	all, err := filepath.Glob("*.txtar")
	all = slices.DeleteFunc(all, func(name string) bool { return !wanted(name) })
	if err != nil || len(all) == 0 {
		t.Fatalf("scripts: %q, %v", all, err)
	}
	return all
}

// storage tells a script of a bucket.
func storage(env *testscript.Env, s3 *tests3.Server, endpoint, bucket string) {
	env.Setenv("S3_ENDPOINT", endpoint)
	env.Setenv("S3_REGION", s3.Region)
	env.Setenv("S3_ACCESS_KEY", s3.AccessKey)
	env.Setenv("S3_SECRET_KEY", s3.SecretKey)
	env.Setenv("S3_BUCKET", bucket)
}

// setUp gives a script its state directory, and sees to it that what it starts
// ends with it.
func setUp(env *testscript.Env) error {
	state, err := os.MkdirTemp("/tmp", "kbs-")
	if err != nil {
		return err
	}
	if err := os.Chmod(state, 0o755); err != nil {
		return err
	}
	env.Defer(func() {
		if err := stopAll(state); err != nil {
			env.T().Log(err)
		}
		if err := os.RemoveAll(state); err != nil {
			env.T().Log(err)
		}
	})
	env.Setenv("KBCLI_STATE_DIR", state)
	env.Setenv("KBCLI_CONTEXT", "")
	env.Setenv("KBCLI_SUPERVISOR", "process") // a machine with systemd is left as it is
	env.Setenv("PATH", program+string(os.PathListSeparator)+env.Getenv("PATH"))
	env.Setenv("TZ", "Asia/Shanghai")
	env.Setenv("LC_ALL", "C.UTF-8")
	for _, name := range []string{"PGPASSWORD", "PGPASSFILE", "PGUSER", "PGHOST", "PGPORT", "PGDATABASE"} {
		env.Setenv(name, "")
	}
	return nil
}
