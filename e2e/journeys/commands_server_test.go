// SPDX-License-Identifier: Apache-2.0

package journeys

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

func init() {
	commands["server"] = cmdServer
	commands["moveserver"] = cmdMoveServer
}

const serverPrograms = "/usr/lib/postgresql/" + debianMajor + "/bin/"

// cmdServer makes a server as a hand would that runs initdb, with more of its options,
// and starts it. The end of the script takes it away.
func cmdServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: server [as=ACCOUNT] [INITDB-OPTION…]")
	}
	account := "postgres"
	if len(args) > 0 && strings.HasPrefix(args[0], "as=") {
		account, args = strings.TrimPrefix(args[0], "as="), args[1:]
	}
	dir, err := os.MkdirTemp("/tmp", "kbd-")
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	data := filepath.Join(dir, "data")
	ts.Check(os.Chmod(dir, 0o755))
	ts.Check(exec.Command("chown", account, dir).Run())
	runCommand(ts, "runuser", append([]string{"-u", account, "--", serverPrograms + "initdb", "-N", "-A", "trust", "-E", "UTF8", "--no-locale", "-D", data}, args...)...)
	ts.Setenv("SERVER_DATA", data)
	ts.Setenv("SERVER_ACCOUNT", account)
	startServer(ts, newPlace(ts), freePort(ts))
	ts.Defer(func() {
		// it may not run any more
		_ = exec.Command("runuser", "-u", account, "--", serverPrograms+"pg_ctl", "-D", data, "-m", "immediate", "-w", "stop").Run()
	})
}

// cmdMoveServer stops the server, and starts it with another port and socket.
func cmdMoveServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 && len(args) != 2 {
		ts.Fatalf("usage: moveserver [SOCKET-DIRECTORY PORT]")
	}
	if len(args) == 0 {
		args = []string{newPlace(ts), freePort(ts)}
	}
	runCommand(ts, "runuser", "-u", ts.Getenv("SERVER_ACCOUNT"), "--", serverPrograms+"pg_ctl", "-D", ts.Getenv("SERVER_DATA"), "-m", "fast", "-w", "stop")
	startServer(ts, args[0], args[1])
}

// newPlace makes a directory for the server's socket.
func newPlace(ts *testscript.TestScript) string {
	socket, err := os.MkdirTemp(filepath.Dir(ts.Getenv("SERVER_DATA")), "run")
	ts.Check(err)
	ts.Check(os.Chmod(socket, 0o755))
	ts.Check(exec.Command("chown", ts.Getenv("SERVER_ACCOUNT"), socket).Run())
	return socket
}

func startServer(ts *testscript.TestScript, socket, port string) {
	account, data := ts.Getenv("SERVER_ACCOUNT"), ts.Getenv("SERVER_DATA")
	runCommand(ts, "runuser", "-u", account, "--", serverPrograms+"pg_ctl", "-D", data, "-l", filepath.Join(filepath.Dir(data), "log"), "-w",
		"-o", "-k "+socket+" -p "+port+" -c listen_addresses=127.0.0.1", "start")
	ts.Setenv("SERVER_SOCKET", socket)
	ts.Setenv("SERVER_PORT", port)
}
