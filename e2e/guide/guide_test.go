// SPDX-License-Identifier: Apache-2.0

package guide

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/internal/testdisk"
	"github.com/kbcli/kbcli/internal/tests3"
)

var update = flag.Bool("update", false, "write what the commands print into the guide")

const guideDir = "../../docs/guide"

// As many as there are. Who adds a block counts it here: one that is not found, or
// that silently is not run any more, is a failure.
const (
	blocksRun    = 56
	blocksNotRun = 21
)

// chapterTime is the most that a chapter may take.
const chapterTime = 5 * time.Minute

func TestGuide(t *testing.T) {
	names, err := filepath.Glob(filepath.Join(guideDir, "[0-9]*.md"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	own := surroundings(t)
	ran, notRun := 0, 0
	for _, name := range names {
		ok := t.Run(strings.TrimSuffix(filepath.Base(name), ".md"), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			c := parse(string(b))
			for _, problem := range c.problems() {
				t.Error(problem)
			}
			c.replace(t, own.replace)
			outputs := c.run(t, own.env)
			for i := range outputs {
				outputs[i] = own.shown.Replace(outputs[i])
			}
			ran += len(c.sessions)
			notRun += c.notRun
			if *update {
				if err := os.WriteFile(name, []byte(c.updated(outputs)), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			for i, s := range c.sessions {
				if s.want == "" {
					continue
				}
				if line, ok := matches(s.want, outputs[i]); !ok {
					t.Errorf("block %d:\n%s\nprints\n%s\nand the guide says %q", i+1, s.script, outputs[i], line)
				}
			}
		})
		if !ok {
			t.Fatal("the chapters after it build upon this one")
		}
	}
	if !*update && (ran != blocksRun || notRun != blocksNotRun) {
		t.Errorf("%d blocks ran and %d did not; the test knows of %d and %d", ran, notRun, blocksRun, blocksNotRun)
	}
}

// setting is what the guide runs in.
type setting struct {
	env     []string
	replace map[string]string // the guide's word → the test's
	shown   *strings.Replacer // what the test's commands print → what the guide shows
}

func surroundings(t *testing.T) setting {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "kbg-")
	if err != nil {
		t.Fatal(err)
	}
	state, bin := filepath.Join(dir, "state"), filepath.Join(dir, "bin")
	t.Cleanup(func() {
		endAll(t, dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for _, d := range []string{dir, state, bin, filepath.Join(dir, "keys"), filepath.Join(dir, "other")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build(t, "../../deploy/build.sh", filepath.Join(bin, "kbcli"), "v0.1.0")
	build(t, "go", "build", "-o", filepath.Join(bin, "age-keygen"), "filippo.io/age/cmd/age-keygen")
	disk := testdisk.Start(t, "xfs", 1<<30)
	t.Cleanup(func() { endAll(t, dir); endAll(t, disk) })
	server := somebodysServer(t, filepath.Join(dir, "main"))
	s3 := tests3.Start(t)
	own := setting{
		env: []string{
			"PATH=" + bin + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + dir, "TZ=Asia/Shanghai", "LC_ALL=C.UTF-8",
			"KBCLI_STATE_DIR=" + state, "KBCLI_SUPERVISOR=process",
		},
		replace: map[string]string{
			"https://s3.example.com":      s3.Endpoint,
			"eu-west-1":                   s3.Region,
			"my-bucket":                   s3.NewBucket(t),
			"MY-ACCESS-KEY":               s3.AccessKey,
			"MY-SECRET-KEY":               s3.SecretKey,
			"/mnt/nas":                    filepath.Join(dir, "nas"),
			"/mnt/moved":                  filepath.Join(dir, "moved"),
			"/mnt/xfs":                    disk,
			"/mnt/safe":                   filepath.Join(dir, "keys"),
			"/var/lib/new-machine":        filepath.Join(dir, "other"),
			"/var/lib/postgresql/15/main": server,
		},
	}
	pairs := []string{state, "/var/lib/kubeblocks", filepath.Join(bin, "kbcli"), "/usr/bin/kbcli"}
	for word, is := range own.replace {
		pairs = append(pairs, is, word)
	}
	own.shown = strings.NewReplacer(pairs...)
	return own
}

func build(t *testing.T, program string, args ...string) {
	t.Helper()
	if b, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, b)
	}
}

// replace puts the test's own words in the place of the guide's. A word that the chapter
// does not tell its reader to replace is a failure.
func (c *chapter) replace(t *testing.T, words map[string]string) {
	for i := range c.sessions {
		s := &c.sessions[i]
		for word, own := range words {
			if !strings.Contains(s.script, word) {
				continue
			}
			if !c.declares(word) {
				t.Errorf("%s is used in block %d and is in no table of what to replace", word, i+1)
			}
			s.script = strings.ReplaceAll(s.script, word, own)
		}
	}
}

func (c *chapter) declares(word string) bool {
	for line := range strings.Lines(c.text) {
		if strings.HasPrefix(line, "| `"+word+"` |") {
			return true
		}
	}
	return false
}

// mark begins a block in what a chapter prints.
const mark = "\x01block\x01"

// run runs a chapter as one session, and returns what each block printed.
func (c *chapter) run(t *testing.T, env []string) []string {
	t.Helper()
	if t.Failed() {
		t.FailNow()
	}
	var script strings.Builder
	for _, s := range c.sessions {
		script.WriteString("printf '" + mark + "'\n" + s.script + "\n")
	}
	ctx, cancel := context.WithTimeout(context.Background(), chapterTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-eu", "-o", "pipefail", "-c", script.String())
	cmd.Env, cmd.Dir = env, "/"
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	outputs := strings.Split(progress.ReplaceAllString(out.String(), ""), mark)[1:]
	if err != nil {
		i := len(outputs) - 1
		t.Fatalf("block %d of %d: %v\n%s\nprints\n%s", i+1, len(c.sessions), err, c.sessions[i].script, outputs[i])
	}
	return outputs
}

// progress is what a command that takes more than ten seconds says meanwhile.
var progress = regexp.MustCompile(`(?m)^(waiting for the agent|deleting|(New|InProgress|Creating|Restoring|Fetching|Recovering|Reading|Starting|Stopping|Restarting)( .*)?)\n`)

var (
	digits  = regexp.MustCompile(`\d+(\\\.\d+)?( k?(B|MB|GB)\b)?`)
	months  = regexp.MustCompile(`\b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) `)
	lsns    = regexp.MustCompile(`\b[0-9A-F]+/[0-9A-F]{3,}\b`)
	hexes   = regexp.MustCompile(`\b[0-9a-f]{12,}\b`)
	secrets = regexp.MustCompile(`password: [A-Za-z0-9]{10} `)
	lags    = regexp.MustCompile(`^(Streaming) \d+ k?B(, \d+s)? `)
	before  = regexp.MustCompile(`, (now|\d+ \w+ before now)\b`)
	exactly = regexp.MustCompile(`^\s*(\d+|\(\d+ rows?\))\s*$`)
)

// pattern matches what a line of the guide stands for.
func pattern(line string) *regexp.Regexp {
	text := strings.Join(strings.Fields(line), " ")
	if !exactly.MatchString(line) {
		text = before.ReplaceAllString(text, ", …")
		text = lags.ReplaceAllString(text, "$1 \x06 ")
		text = secrets.ReplaceAllString(text, "password: \x02 ")
		text = lsns.ReplaceAllString(text, "\x03")
		text = hexes.ReplaceAllString(text, "\x04")
		text = months.ReplaceAllString(text, "\x05 ")
		text = regexp.QuoteMeta(text)
		text = digits.ReplaceAllString(text, `\d+(\.\d+)?( [kM]?B)?`)
	} else {
		text = regexp.QuoteMeta(text)
	}
	text = strings.NewReplacer("…", ".*", "\x02", "[A-Za-z0-9]{10}", "\x03", "[0-9A-F]+/[0-9A-F]+", "\x04", "[0-9a-f]+", "\x05", "[A-Z][a-z]{2}", "\x06", `\d+ k?B(, \d+s)?`).Replace(text)
	return regexp.MustCompile("^" + text + "$")
}

// matches tells whether each line of want is in got, in that order, one after the other
// unless a line that is "…" stands between; or which one is not.
func matches(want, got string) (missing string, ok bool) {
	lines := strings.Split(strings.TrimSpace(got), "\n")
	skip := true // what a block prints first does not matter
	for w := range strings.Lines(want) {
		w = strings.TrimSuffix(w, "\n")
		if strings.TrimSpace(w) == "…" {
			skip = true
			continue
		}
		re := pattern(w)
		for {
			if len(lines) == 0 {
				return w, false
			}
			line := strings.Join(strings.Fields(lines[0]), " ")
			lines = lines[1:]
			if re.MatchString(line) {
				break
			}
			if !skip {
				return w, false
			}
		}
		skip = false
	}
	return "", true
}
