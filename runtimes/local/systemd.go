// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"

	"github.com/kbcli/kbcli/internal/atomicfile"
)

// unitMark begins the units that Ready wrote: those it may write anew.
const unitMark = "# written by kbcli"

//go:embed agent.service.tmpl
var unitText string

var unitTemplate = template.Must(template.New("unit").Funcs(template.FuncMap{"quote": unitQuote}).Parse(unitText))

// unit is a systemd unit that runs the agent of one state directory.
type unit struct {
	Name     string
	Program  string
	StateDir string
	User     bool // of the user's systemd
}

func (u unit) render() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(unitMark + ". Changes belong into a drop-in (systemctl edit): this file is written anew when the program moves.\n")
	if err := unitTemplate.Execute(&b, u); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// DefaultStateDir is where root's clusters live when nothing else is said.
const DefaultStateDir = "/var/lib/kubeblocks"

// unitName names a state directory's unit.
func unitName(state string, isDefault bool) string {
	if isDefault {
		return "kbcli-agent.service"
	}
	return "kbcli-agent@" + unitEscape(state) + ".service"
}

// unitEscape is systemd-escape --path of an absolute, clean path.
func unitEscape(path string) string {
	path = strings.Trim(path, "/")
	if path == "" {
		return "-"
	}
	var b strings.Builder
	for i := range len(path) {
		switch c := path[i]; {
		case c == '/':
			b.WriteByte('-')
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c == ':', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// unitQuote makes one word of a unit file: neither blanks nor % nor $ mean anything.
func unitQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "%", "%%", "$", "$$").Replace(s) + `"`
}

// unitPaths are where systemd looks, first what counts most.
func unitPaths(user bool) []string {
	if user {
		return []string{"/etc/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user", "/lib/systemd/user"}
	}
	return []string{"/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}
}

// ownUnitDir is where Ready puts units.
func ownUnitDir(user bool) (string, error) {
	if !user {
		return "/etc/systemd/system", nil
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(config, "systemd", "user"), nil
}

// install writes u unless one is there that somebody else wrote: a package or an
// administrator. It tells whether systemd must read its units again, and whether u is ours.
func (u unit) install(own string, others []string) (reload, ours bool, err error) {
	path := filepath.Join(own, u.Name)
	have, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, false, err
	}
	there := err == nil
	if there && !bytes.HasPrefix(have, []byte(unitMark)) {
		return false, false, nil
	}
	if !there {
		names := []string{u.Name}
		if prefix, _, ok := strings.Cut(u.Name, "@"); ok {
			names = append(names, prefix+"@.service")
		}
		for _, dir := range append([]string{own}, others...) {
			for _, name := range names {
				if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
					return false, false, nil
				}
			}
		}
	}
	want, err := u.render()
	if err != nil || bytes.Equal(have, want) {
		return false, true, err
	}
	if err := os.MkdirAll(own, 0o755); err != nil {
		return false, true, err
	}
	return true, true, atomicfile.Write(path, want, 0o644)
}

// unit is this state directory's.
func (r *Runtime) unit(how supervisor) unit {
	usual, err := filepath.EvalSymlinks(DefaultStateDir)
	isDefault := how == bySystem && err == nil && r.state == usual
	return unit{Name: unitName(r.state, isDefault), Program: r.program, StateDir: r.state, User: how == byUser}
}

// startUnit makes systemd run the agent, now and after each start of the machine.
func (r *Runtime) startUnit(ctx context.Context, how supervisor) error {
	u := r.unit(how)
	own, err := ownUnitDir(u.User)
	if err != nil {
		return err
	}
	reload, ours, err := u.install(own, unitPaths(u.User))
	if err != nil {
		return err
	}
	if reload {
		if err := systemctl(ctx, u.User, "daemon-reload"); err != nil {
			return err
		}
	}
	if ours || strings.Contains(u.Name, "@") {
		// a package's default unit is enabled or not, as its administrator likes
		if err := systemctl(ctx, u.User, "enable", u.Name); err != nil {
			return err
		}
	}
	if err := systemctl(ctx, u.User, "start", u.Name); err != nil {
		return err
	}
	return r.awaitAgent(ctx, func() error {
		if systemctl(ctx, u.User, "is-failed", "--quiet", u.Name) == nil {
			return fmt.Errorf("%s failed; systemctl status %s tells more", u.Name, u.Name)
		}
		return nil
	})
}

func systemctl(ctx context.Context, user bool, args ...string) error {
	if user {
		args = append([]string{"--user"}, args...)
	}
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, lastLines(string(out), 3))
	}
	return nil
}

var unitInCgroup = regexp.MustCompile(`(?m)/(kbcli-agent(?:@[^/\n]*)?\.service)$`)

// ownUnit is the unit that this process is the main one of; empty if it is none's.
func ownUnit() (name string, user bool) {
	if os.Getenv(notifyEnv) == "" {
		return "", false
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", false
	}
	m := unitInCgroup.FindSubmatch(b)
	if m == nil {
		return "", false
	}
	return string(m[1]), bytes.Contains(b, []byte("/user@"))
}

// notifyEnv names the socket where systemd hears from a unit of Type=notify.
const notifyEnv = "NOTIFY_SOCKET"

// notify tells systemd how the agent stands, if systemd is there to listen.
func notify(state string) error {
	path := os.Getenv(notifyEnv)
	if path == "" {
		return nil
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	return nil
}
