// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	passed = `{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestQuick"}
{"Action":"output","Package":"m/a","Test":"TestQuick","Output":"=== RUN   TestQuick\n"}
{"Action":"output","Package":"m/a","Test":"TestQuick","Output":"    a_test.go:1: never seen\n"}
{"Action":"output","Package":"m/a","Test":"TestQuick","Output":"--- PASS: TestQuick (0.01s)\n"}
{"Action":"pass","Package":"m/a","Test":"TestQuick","Elapsed":0.01}
{"Action":"pass","Package":"m/a","Test":"TestSlow/child","Elapsed":2.5}
{"Action":"pass","Package":"m/a","Test":"TestSlow","Elapsed":2.6}
{"Action":"output","Package":"m/a","Output":"PASS\n"}
{"Action":"output","Package":"m/a","Output":"ok  \tm/a\t2.620s\n"}
{"Action":"pass","Package":"m/a","Elapsed":2.62}
`
	empty = `{"Action":"start","Package":"m/none"}
{"Action":"output","Package":"m/none","Output":"?   \tm/none\t[no test files]\n"}
{"Action":"skip","Package":"m/none","Elapsed":0}
`
	failed = `{"Action":"start","Package":"m/b"}
{"Action":"output","Package":"m/b","Test":"TestWrong/child","Output":"=== RUN   TestWrong/child\n"}
{"Action":"output","Package":"m/b","Test":"TestWrong/child","Output":"    b_test.go:2: why it failed\n"}
{"Action":"output","Package":"m/b","Test":"TestWrong","Output":"--- FAIL: TestWrong (0.00s)\n"}
{"Action":"fail","Package":"m/b","Test":"TestWrong/child","Elapsed":0}
{"Action":"fail","Package":"m/b","Test":"TestWrong","Elapsed":0}
{"Action":"output","Package":"m/b","Output":"FAIL\n"}
{"Action":"output","Package":"m/b","Output":"FAIL\tm/b\t0.002s\n"}
{"Action":"fail","Package":"m/b","Elapsed":0.002}
`
	skipped = `{"Action":"start","Package":"m/c"}
{"Action":"output","Package":"m/c","Test":"TestLater","Output":"    c_test.go:3: no server\n"}
{"Action":"skip","Package":"m/c","Test":"TestLater","Elapsed":0}
{"Action":"output","Package":"m/c","Output":"ok  \tm/c\t0.002s\n"}
{"Action":"pass","Package":"m/c","Elapsed":0.002}
`
	brokeOff = `{"Action":"start","Package":"m/d"}
{"Action":"output","Package":"m/d","Test":"TestHangs","Output":"    d_test.go:4: the last words\n"}
`
	unbuilt = `{"ImportPath":"m/e","Action":"build-output","Output":"e.go:1:1: syntax error\n"}
{"ImportPath":"m/e","Action":"build-fail"}
{"Action":"start","Package":"m/e"}
{"Action":"output","Package":"m/e","Output":"FAIL\tm/e [build failed]\n"}
{"Action":"fail","Package":"m/e","Elapsed":0,"FailedBuild":"m/e"}
`
)

func TestRun(t *testing.T) {
	for _, test := range []struct {
		name, in string
		strict   bool
		ok       bool
		want     string
	}{
		{"passed", passed + empty, true, true, "ok  \tm/a\t2.620s\n?   \tm/none\t[no test files]\n\nslowest:\n" +
			"    2.50s  m/a TestSlow/child\n    0.01s  m/a TestQuick\n\n2 tests in 2 packages: 2 passed, 0 failed, 0 skipped\n"},
		{"failed", failed, false, false, "    b_test.go:2: why it failed\n--- FAIL: TestWrong (0.00s)\nFAIL\nFAIL\tm/b\t0.002s\n\nslowest:\n" +
			"    0.00s  m/b TestWrong/child\n\n1 tests in 1 packages: 0 passed, 1 failed, 0 skipped\n"},
		{"skipped", skipped, false, true, "ok  \tm/c\t0.002s\n\nskipped:\n           m/c TestLater\n\nslowest:\n" +
			"    0.00s  m/c TestLater\n\n1 tests in 1 packages: 0 passed, 0 failed, 1 skipped\n"},
		{"skipped in CI", skipped, true, false, "ok  \tm/c\t0.002s\n\nskipped:\n           m/c TestLater\n\nslowest:\n" +
			"    0.00s  m/c TestLater\n\n1 tests in 1 packages: 0 passed, 0 failed, 1 skipped\na skipped test is a failure where CI is set\n"},
		{"broke off", brokeOff, false, false, "    d_test.go:4: the last words\nFAIL\tm/d [broke off]\n\n" +
			"0 tests in 0 packages: 0 passed, 0 failed, 0 skipped\nnothing was tested\n"},
		{"did not build", unbuilt, false, false, "e.go:1:1: syntax error\nFAIL\tm/e [build failed]\n\n" +
			"0 tests in 1 packages: 0 passed, 0 failed, 0 skipped\n"},
		{"nothing", "", false, false, "\n0 tests in 0 packages: 0 passed, 0 failed, 0 skipped\nnothing was tested\n"},
		{"plain words", "go: cannot find main module", false, false, "go: cannot find main module\n\n" +
			"0 tests in 0 packages: 0 passed, 0 failed, 0 skipped\nnothing was tested\n"},
	} {
		var out strings.Builder
		ok, err := run(strings.NewReader(test.in), &out, test.strict)
		if err != nil || ok != test.ok || out.String() != test.want {
			t.Errorf("%s: %v, %v\n%s\nwant %v\n%s", test.name, ok, err, out.String(), test.ok, test.want)
		}
	}
}

// The events above are ours; these are the go command's.
func TestRealGoTest(t *testing.T) {
	for _, test := range []struct {
		name, body string
		ok         bool
		says       []string
	}{
		{"pass", `t.Log("quiet")`, true, []string{"ok  \t", "m TestX", "1 passed"}},
		{"fail", `t.Error("loud")`, false, []string{"loud", "--- FAIL: TestX", "FAIL\tm", "1 failed"}},
		{"panic", `panic("aloud")`, false, []string{"panic: aloud", "FAIL\tm"}},
		{"exit", `println("about to leave"); os.Exit(3)`, false, []string{"about to leave", "FAIL\tm"}},
		{"timeout", `time.Sleep(time.Hour)`, false, []string{"panic: test timed out", "FAIL\tm"}},
		{"build", `undefined()`, false, []string{"undefined: undefined", "FAIL\tm [build failed]"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			src := "package m\n\nimport (\n\"os\"\n\"testing\"\n\"time\"\n)\n\nvar _ = os.Exit\nvar _ = time.Sleep\n\nfunc TestX(t *testing.T) {\n" + test.body + "\n}\n"
			for name, text := range map[string]string{"go.mod": "module m\n\ngo 1.26\n", "m_test.go": src} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("go", "test", "-json", "-vet=off", "-timeout=2s", ".")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
			events, _ := cmd.Output()
			var out strings.Builder
			ok, err := run(strings.NewReader(string(events)), &out, true)
			if err != nil || ok != test.ok {
				t.Errorf("%v, %v, want %v", ok, err, test.ok)
			}
			for _, says := range test.says {
				if !strings.Contains(out.String(), says) {
					t.Errorf("no %q in\n%s", says, out.String())
				}
			}
		})
	}
}
