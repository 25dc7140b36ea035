// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/runtimes"
)

// runningServers finds the PostgreSQL servers on this machine, by their processes and,
// for those in containers or of users that may not be looked at, by their sockets.
// It is a help for people: what cannot be read is left out.
func runningServers() []runtimes.RunningServer {
	var out []runtimes.RunningServer
	seen := map[string]bool{} // sockets
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range procs {
		s, socket, ok := serverOf(filepath.Dir(path))
		if ok {
			seen[socket] = true
			out = append(out, s)
		}
	}
	for _, dir := range []string{"/var/run/postgresql", "/tmp"} {
		sockets, _ := filepath.Glob(filepath.Join(dir, ".s.PGSQL.*"))
		for _, path := range sockets {
			port := strings.TrimPrefix(filepath.Base(path), ".s.PGSQL.")
			if strings.HasSuffix(port, ".lock") || seen[path] {
				continue
			}
			if real, err := filepath.EvalSymlinks(path); err == nil && seen[real] {
				continue
			}
			if info, err := client.With("", [2]string{"host", dir}, [2]string{"port", port}); err == nil {
				out = append(out, runtimes.RunningServer{Name: "my-pg", Connect: info})
			}
		}
	}
	slices.SortFunc(out, func(a, b runtimes.RunningServer) int { return strings.Compare(a.Connect, b.Connect) })
	return out
}

// serverOf tells whether a process is a postmaster, and of which server. Those that
// kbcli made itself are no answer, wherever its state directory is.
func serverOf(proc string) (s runtimes.RunningServer, socket string, ok bool) {
	exe, err := os.Readlink(filepath.Join(proc, "exe"))
	if err != nil || filepath.Base(strings.TrimSuffix(exe, " (deleted)")) != "postgres" {
		return s, "", false
	}
	dir, err := os.Readlink(filepath.Join(proc, "cwd"))
	if err != nil {
		return s, "", false
	}
	pid, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil || !bytes.HasPrefix(pid, []byte(filepath.Base(proc)+"\n")) {
		return s, "", false // a child of a postmaster
	}
	info, err := connectTo(dir)
	if err != nil {
		return s, "", false
	}
	host, _ := client.Keyword(info, "host")
	port, _ := client.Keyword(info, "port")
	socket = fmt.Sprintf("%s/.s.PGSQL.%s", host, port)
	if _, err := os.Stat(filepath.Join(dir, ownConf)); err == nil {
		return s, socket, false
	}
	version, _ := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	return runtimes.RunningServer{
		Name: proposedName(dir), DataDirectory: dir, Connect: info, Version: strings.TrimSpace(string(version)),
	}, socket, true
}

// proposedName makes a cluster's name of the directory that a server is known by:
// /var/lib/postgresql/15/main is main-15.
func proposedName(dir string) string {
	words := strings.FieldsFunc(strings.ToLower(dir), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	for len(words) > 0 && (words[len(words)-1] == "data" || words[len(words)-1] == "pgdata") {
		words = words[:len(words)-1]
	}
	name := "my-pg"
	if n := len(words); n > 0 && words[n-1][0] > '9' {
		name = words[n-1]
		if n > 1 && words[n-2][0] <= '9' {
			name += "-" + words[n-2]
		}
	}
	return name[:min(len(name), 40)]
}
