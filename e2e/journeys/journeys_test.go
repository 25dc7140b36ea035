// SPDX-License-Identifier: Apache-2.0

package journeys

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

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
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "kbcli"), "github.com/kbcli/kbcli/cmd/kbcli")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build kbcli: %v\n%s", err, out)
		return 1
	}
	program = dir
	return m.Run()
}

func TestJourneys(t *testing.T) {
	scripts, err := filepath.Glob("*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("scripts: %q, %v", scripts, err)
	}
	s3 := tests3.Start(t)
	buckets := make(chan string, len(scripts))
	for range scripts {
		buckets <- s3.NewBucket(t)
	}
	oldest, newest := testpg.Binaries(t, 13).BinDir, testpg.Binaries(t, 18).BinDir
	testscript.Run(t, testscript.Params{
		Files: scripts,
		Setup: func(env *testscript.Env) error {
			env.Setenv("S3_ENDPOINT", s3.Endpoint)
			env.Setenv("S3_REGION", s3.Region)
			env.Setenv("S3_ACCESS_KEY", s3.AccessKey)
			env.Setenv("S3_SECRET_KEY", s3.SecretKey)
			env.Setenv("S3_BUCKET", <-buckets)
			env.Setenv("PG13_BIN", oldest)
			env.Setenv("PG18_BIN", newest)
			return setUp(env)
		},
		Cmds:                commands,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
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
