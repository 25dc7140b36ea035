// SPDX-License-Identifier: Apache-2.0

package journeys

import (
	"cmp"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

func init() {
	commands["debian"] = cmdDebian
	commands["sql"] = cmdSQL
	commands["mend"] = cmdMend
	commands["standby"] = cmdStandby
}

const debianMajor = "15"

// cmdDebian makes a cluster as Debian's packages do, beside those of the machine, and
// starts it. The end of the script takes it away.
func cmdDebian(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: debian")
	}
	dir, err := os.MkdirTemp("/tmp", "kbd-")
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	ts.Check(os.Chmod(dir, 0o755))
	name, port := "kb"+filepath.Base(dir)[4:], freePort(ts)
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "run")
	ts.Check(os.Mkdir(socket, 0o755))
	ts.Check(exec.Command("chown", "postgres:postgres", dir, socket).Run())
	runCommand(ts, "pg_createcluster", "-d", data, "-s", socket, "-p", port, "--start-conf=manual", debianMajor, name)
	ts.Defer(func() {
		if out, err := exec.Command("pg_dropcluster", "--stop", debianMajor, name).CombinedOutput(); err != nil {
			ts.Logf("pg_dropcluster %s: %v\n%s", name, err, out)
		}
	})
	runCommand(ts, "pg_ctlcluster", debianMajor, name, "start")
	ts.Setenv("SERVER_NAME", name)
	ts.Setenv("SERVER_DATA", data)
	ts.Setenv("SERVER_SOCKET", socket)
	ts.Setenv("SERVER_PORT", port)
	ts.Setenv("SERVER_CONF", filepath.Join("/etc/postgresql", debianMajor, name))
}

// cmdStandby makes a standby of the server that debian made, and makes it the server
// of the script; the primary goes on as $PRIMARY_….
func cmdStandby(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: standby")
	}
	for _, v := range []string{"NAME", "DATA", "SOCKET", "PORT", "CONF"} {
		ts.Setenv("PRIMARY_"+v, ts.Getenv("SERVER_"+v))
	}
	cmdDebian(ts, false, nil)
	runCommand(ts, "pg_ctlcluster", debianMajor, ts.Getenv("SERVER_NAME"), "stop", "-m", "immediate")
	data := ts.Getenv("SERVER_DATA")
	ts.Check(os.RemoveAll(data))
	runCommand(ts, "runuser", "-u", "postgres", "--", "/usr/lib/postgresql/"+debianMajor+"/bin/pg_basebackup", "-h", ts.Getenv("PRIMARY_SOCKET"),
		"-p", ts.Getenv("PRIMARY_PORT"), "-D", data, "-R", "-c", "fast", "-C", "-S", "standby")
	runCommand(ts, "pg_ctlcluster", debianMajor, ts.Getenv("SERVER_NAME"), "start")
}

func freePort(ts *testscript.TestScript) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func runCommand(ts *testscript.TestScript, name string, args ...string) {
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		ts.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// cmdSQL runs SQL as who runs the server, or as $SERVER_USER.
func cmdSQL(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: sql STATEMENT…")
	}
	account := cmp.Or(ts.Getenv("SERVER_ACCOUNT"), "postgres")
	words := []string{
		"-u", account, "--", "psql", "-X", "-h", ts.Getenv("SERVER_SOCKET"), "-p", ts.Getenv("SERVER_PORT"),
		"-U", cmp.Or(ts.Getenv("SERVER_USER"), account), "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-Atq",
	}
	for _, a := range args {
		words = append(words, "-c", a)
	}
	ts.Check(ts.Exec("runuser", words...))
}

// cmdMend does what the last answer of `cluster attach -o json` says that mends the
// server: each line once, statements in psql, all else in a shell.
func cmdMend(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: mend")
	}
	var answer struct {
		Findings []struct{ Check, Level, Next string }
	}
	text := ts.ReadFile("stdout")
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		ts.Fatalf("%v in\n%s", err, text)
	}
	for _, f := range answer.Findings {
		if f.Level != "fail" {
			continue
		}
		for line := range strings.SplitSeq(f.Next, "\n") {
			ts.Logf("%s: %s", f.Check, line)
			if strings.HasSuffix(line, ";") {
				cmdSQL(ts, false, []string{line})
				continue
			}
			ts.Check(ts.Exec("sh", "-c", line))
		}
	}
}
