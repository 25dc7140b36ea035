// SPDX-License-Identifier: Apache-2.0

package local

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var updateUnits = flag.Bool("update-units", false, "write deploy/systemd anew")

// The units of the package are the template's, for /usr/bin/kbcli.
func TestPackageUnits(t *testing.T) {
	for _, test := range []struct{ name, state, instead string }{
		{"kbcli-agent.service", DefaultStateDir, ""},
		{"kbcli-agent@.service", "/STATE", "%f"},
	} {
		b, err := unit{Name: test.name, Program: "/usr/bin/kbcli", StateDir: test.state}.render()
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(string(b), "\n") // the mark: a package's unit is not written anew
		if test.instead != "" {
			text = strings.ReplaceAll(text, test.state, test.instead)
		}
		path := filepath.Join("..", "..", "deploy", "systemd", test.name)
		text = "# SPDX-License-Identifier: Apache-2.0\n" + text
		if *updateUnits {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), text); diff != "" {
			t.Errorf("%s (-want +got)\n%s", test.name, diff)
		}
	}
}

// What systemd itself says of the units that Ready writes.
func TestUnitsVerify(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Fatal("systemd-analyze is needed: install systemd")
	}
	for _, state := range []string{DefaultStateDir, `/srv/a b/100%/$HOME/"q"\x`} {
		for _, user := range []bool{false, true} {
			dir := t.TempDir()
			u := unit{Name: "kbcli-agent.service", Program: "/bin/true", StateDir: state, User: user}
			if _, ours, err := u.install(dir, nil); err != nil || !ours {
				t.Fatal(ours, err)
			}
			args := []string{"verify", "--man=no", filepath.Join(dir, u.Name)}
			if user {
				args = append([]string{"--user"}, args...)
			}
			cmd := exec.Command("systemd-analyze", args...)
			cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil || strings.Contains(string(out), u.Name+":") {
				t.Errorf("%s, user %t: %v\n%s", state, user, err, out)
			}
		}
	}
}

func TestUnitName(t *testing.T) {
	for _, test := range []struct{ path, want string }{
		{"/srv/pg", "kbcli-agent@srv-pg.service"},
		{"/srv/my-pg/.a b", `kbcli-agent@srv-my\x2dpg-.a\x20b.service`},
		{"/.hidden", `kbcli-agent@\x2ehidden.service`},
		{"/ü", `kbcli-agent@\xc3\xbc.service`},
	} {
		if got := unitName(test.path, false); got != test.want {
			t.Errorf("%s: got %s, want %s", test.path, got, test.want)
		}
		out, err := exec.Command("systemd-escape", "--path", test.path).Output()
		if err != nil {
			t.Fatal(err)
		}
		if want := "kbcli-agent@" + strings.TrimSpace(string(out)) + ".service"; want != test.want {
			t.Errorf("%s: systemd-escape says %s, want %s", test.path, want, test.want)
		}
	}
	if got := unitName(DefaultStateDir, true); got != "kbcli-agent.service" {
		t.Error(got)
	}
}

func TestChooseSupervisor(t *testing.T) {
	for _, test := range []struct {
		want                         string
		booted, root, linger, answer bool
		is                           supervisor
	}{
		{is: byProcess},
		{root: true, is: byProcess},
		{booted: true, root: true, is: bySystem},
		{want: "auto", booted: true, root: true, is: bySystem},
		{want: "process", booted: true, root: true, is: byProcess},
		{booted: true, answer: true, is: byProcess}, // ends with the session
		{booted: true, linger: true, is: byProcess},
		{booted: true, linger: true, answer: true, is: byUser},
		{linger: true, answer: true, is: byProcess},
		{want: "upstart", is: ""},
	} {
		yes := func(b bool) func() bool { return func() bool { return b } }
		got, err := chooseSupervisor(test.want, surroundings{yes(test.booted), yes(test.root), yes(test.linger), yes(test.answer)})
		if got != test.is || (err != nil) != (test.is == "") {
			t.Errorf("%+v: %q, %v", test, got, err)
		}
	}
}

func TestInstallUnit(t *testing.T) {
	u := unit{Name: "kbcli-agent@srv-pg.service", Program: "/opt/kbcli", StateDir: "/srv/pg"}
	type answer struct{ Reload, Ours bool }
	install := func(own, other string) answer {
		t.Helper()
		reload, ours, err := u.install(own, []string{other})
		if err != nil {
			t.Fatal(err)
		}
		return answer{reload, ours}
	}
	write := func(dir, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	own, other := t.TempDir(), t.TempDir()
	check := func(when string, got, want answer) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %+v, want %+v", when, got, want)
		}
	}
	check("new", install(own, other), answer{true, true})
	check("again", install(own, other), answer{false, true})
	u.Program = "/opt/kbcli-2"
	check("moved", install(own, other), answer{true, true})
	write(own, u.Name, "[Service]\nExecStart=/bin/mine\n")
	check("somebody's", install(own, other), answer{false, false})
	own = t.TempDir()
	write(other, "kbcli-agent@.service", "[Service]\n")
	check("a package's template", install(own, other), answer{false, false})
	if entries, err := os.ReadDir(own); err != nil || len(entries) > 0 {
		t.Error(entries, err)
	}
}

func TestAgentEnviron(t *testing.T) {
	got := agentEnviron([]string{"PATH=/bin", "PGPASSWORD=x", "PGHOST=y", "NOTIFY_SOCKET=/z", "TZ=UTC", lockFDEnv + "=3"})
	if diff := cmp.Diff([]string{"PATH=/bin", "TZ=UTC"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
