// SPDX-License-Identifier: Apache-2.0

package checkup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/engine/pg/client"
)

// postmaster is what the kernel tells of a server's first process.
type postmaster struct {
	pid     int // 0: it does not run
	program string
	args    []string
	unit    string // of systemd; empty for none
	log     string // the file that its stderr is; empty for a pipe or a terminal
	owner   string
}

// postmasterOf finds the postmaster of a data directory.
func postmasterOf(dir string) postmaster {
	pid, ok := firstNumber(filepath.Join(dir, "postmaster.pid"))
	if !ok {
		return postmaster{}
	}
	return processOf(pid)
}

func firstNumber(path string) (int, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	line, _, _ := strings.Cut(string(b), "\n")
	n, err := strconv.Atoi(strings.TrimSpace(line))
	return n, err == nil && n > 0
}

func processOf(pid int) postmaster {
	at := fmt.Sprintf("/proc/%d/", pid)
	cmdline, err := os.ReadFile(at + "cmdline")
	if err != nil || len(cmdline) == 0 {
		return postmaster{}
	}
	p := postmaster{pid: pid}
	for _, a := range bytes.Split(bytes.TrimRight(cmdline, "\x00"), []byte{0}) {
		p.args = append(p.args, string(a))
	}
	p.program = p.args[0]
	if exe, err := os.Readlink(at + "exe"); err == nil {
		p.program = strings.TrimSuffix(exe, " (deleted)")
	}
	if groups, err := os.ReadFile(at + "cgroup"); err == nil {
		p.unit = unitOf(string(groups))
	}
	if log, err := os.Readlink(at + "fd/2"); err == nil && filepath.IsAbs(log) && !strings.HasPrefix(log, "/dev/") {
		p.log = log
	}
	if info, err := os.Stat(at); err == nil {
		p.owner = ownerOf(info)
	}
	return p
}

var unitForm = regexp.MustCompile(`(?m)/([^/\n]*(?:postgres|pgsql|patroni)[^/\n]*\.service)$`)

// unitOf reads /proc/PID/cgroup.
func unitOf(cgroups string) string {
	m := unitForm.FindStringSubmatch(cgroups)
	if m == nil {
		return ""
	}
	return strings.TrimSuffix(strings.ReplaceAll(m[1], `\x2d`, "-"), ".service")
}

var debianConf = regexp.MustCompile(`^/etc/postgresql/([^/]+)/([^/]+)/postgresql\.conf$`)

// restartCommand is how a server is restarted by who runs it.
func restartCommand(p postmaster, dir string) string {
	if p.unit != "" {
		return "systemctl restart " + shellWord(p.unit)
	}
	if m := debianConf.FindStringSubmatch(p.configFile()); m != nil {
		return "pg_ctlcluster " + shellWord(m[1]) + " " + shellWord(m[2]) + " restart"
	}
	if dir == "" {
		return "# restart the server"
	}
	program := "pg_ctl"
	if p.program != "" {
		program = filepath.Join(filepath.Dir(p.program), "pg_ctl")
	}
	command := shellWord(program) + " -D " + shellWord(dir) + " -w"
	if p.log != "" {
		command += " -l " + shellWord(p.log)
	}
	command += " restart"
	if os.Geteuid() == 0 && p.owner != "" && p.owner != "root" {
		command = "runuser -u " + shellWord(p.owner) + " -- " + command
	}
	return command
}

func (p postmaster) configFile() string {
	for i, a := range p.args {
		a = strings.TrimPrefix(strings.TrimPrefix(a, "--"), "-c")
		if v, ok := strings.CutPrefix(a, "config_file="); ok {
			return v
		}
		if v, ok := strings.CutPrefix(a, "config-file="); ok {
			return v
		}
		if a == "" && i+1 < len(p.args) {
			if v, ok := strings.CutPrefix(p.args[i+1], "config_file="); ok {
				return v
			}
		}
	}
	return ""
}

func ownerOf(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	if u, err := user.LookupId(strconv.Itoa(int(st.Uid))); err == nil {
		return u.Username
	}
	return strconv.Itoa(int(st.Uid))
}

// ServerUnreachable is the finding that a server does not answer, from the error of
// GatherServer and the facts it returned beside.
func ServerUnreachable(f *ServerFacts, err error) Finding {
	out := Finding{Check: "connection", Level: Fail, Evidence: Words(err)}
	config, cerr := client.Config(f.Target.Conninfo)
	if cerr != nil {
		out.Evidence, out.Next = cerr.Error(), "# give --connect as libpq has it: host=/var/run/postgresql port=5432 user=postgres"
		return out
	}
	out.Next = unreachableNext(f, err, config.Host, int(config.Port))
	return out
}

func unreachableNext(f *ServerFacts, err error, host string, port int) string {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		if f.Target.DataDirectory != "" && postmasterOf(f.Target.DataDirectory).pid == 0 {
			return "# no server runs on " + f.Target.DataDirectory + ": start it first"
		}
		return "# start the server, or give --connect with the host and port it listens on"
	}
	// the socket's lock file tells which server it is, before anybody is let in
	var p postmaster
	dir := f.Target.DataDirectory
	if f.Local {
		if pid, ok := firstNumber(filepath.Join(host, fmt.Sprintf(".s.PGSQL.%d.lock", port))); ok {
			p = processOf(pid)
			if dir == "" {
				dir, _ = os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
			}
		}
	}
	conf := dir
	if c := p.configFile(); c != "" {
		conf = filepath.Dir(c)
	}
	switch refused.Code {
	case stateWrongSecret:
		return "# put the password into ~/.pgpass of the account that runs kbcli's agent, or a file named with passfile= in --connect, as host:port:database:user:password"
	case stateNoRule:
		if strings.HasPrefix(refused.Message, `role "`) && strings.HasSuffix(refused.Message, "does not exist") {
			return "# give --connect with user= and a role of this server, a superuser if there is nothing against it"
		}
		method := "scram-sha-256"
		if f.Local {
			method = "peer map=kbcli"
		}
		steps := []string{fmt.Sprintf("sed -i %s %s", shellWord("1i "+f.accessLine("all", method)), shellWord(filepath.Join(conf, "pg_hba.conf")))}
		if f.Local {
			steps = append(steps,
				fmt.Sprintf("sed -i %s %s", shellWord("1i "+f.accessLine("replication", method)), shellWord(filepath.Join(conf, "pg_hba.conf"))),
				fmt.Sprintf("echo %s >> %s", shellWord("kbcli  "+identifier(f.Agent)+"  "+identifier(f.User)), shellWord(filepath.Join(conf, "pg_ident.conf"))))
		}
		if p.pid != 0 {
			steps = append(steps, fmt.Sprintf("kill -HUP %d", p.pid))
		} else {
			steps = append(steps, "SELECT pg_reload_conf();")
		}
		return lines(steps...)
	case stateTooMany:
		return "-- raise max_connections or end some: SELECT pid, usename, application_name, state FROM pg_stat_activity;"
	case stateNoDatabase:
		return "# give dbname= in --connect"
	case stateNotNow:
		return "# wait until the server has started"
	}
	return "# mend what the server says, and look again"
}

func (f *ServerFacts) accessLine(database, method string) string {
	if f.Local {
		return strings.Join([]string{"local", database, identifier(f.User), method}, "  ")
	}
	return strings.Join([]string{"host", database, identifier(f.User), "127.0.0.1/32", method}, "  ")
}
