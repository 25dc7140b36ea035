// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kbcli/kbcli/engine/pg"
)

// install is one PostgreSQL on this machine.
type install struct {
	major int
	bin   string
}

// NoPostgresError says that no fitting PostgreSQL is installed.
type NoPostgresError struct {
	Want  int // 0: any
	Found []int
}

func (e *NoPostgresError) Error() string {
	if len(e.Found) == 0 {
		return fmt.Sprintf("no PostgreSQL server from %d to %d is installed on this machine", pg.OldestMajor, pg.NewestMajor)
	}
	return fmt.Sprintf("PostgreSQL %d is not installed on this machine; found: %s", e.Want, strings.Trim(strings.Join(strings.Fields(fmt.Sprint(e.Found)), ", "), "[]"))
}

// Hint says how a server is got.
func (e *NoPostgresError) Hint() string {
	major := e.Want
	if major == 0 {
		major = pg.NewestMajor
	}
	return fmt.Sprintf("install its server (on Debian and Ubuntu: apt-get install postgresql-%d), or name the directory of its programs in %s", major, PathVariable)
}

// PathVariable names the environment variable with more directories to look for
// PostgreSQL's programs in, between colons.
const PathVariable = "KBCLI_PG_PATH"

var versionForm = regexp.MustCompile(`^postgres \(PostgreSQL\) (\d+)`)

// findInstall finds the programs of a major version, or of the newest with 0.
func findInstall(major int) (install, error) {
	dirs := filepath.SplitList(os.Getenv(PathVariable))
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql@*/bin"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return install{}, err
		}
		dirs = append(dirs, found...)
	}
	dirs = append(dirs, filepath.SplitList(os.Getenv("PATH"))...)
	var all []install
	for _, dir := range dirs {
		program := filepath.Join(dir, "postgres")
		if _, err := os.Stat(program); err != nil {
			continue
		}
		out, err := exec.Command(program, "--version").Output()
		m := versionForm.FindSubmatch(out)
		if err != nil || m == nil {
			continue // not PostgreSQL's, or broken: another may do
		}
		v, err := strconv.Atoi(string(m[1]))
		if err != nil || v < pg.OldestMajor || v > pg.NewestMajor {
			continue
		}
		if v == major {
			return install{v, dir}, nil
		}
		all = append(all, install{v, dir})
	}
	if major != 0 || len(all) == 0 {
		e := &NoPostgresError{Want: major}
		for _, i := range all {
			e.Found = append(e.Found, i.major)
		}
		slices.Sort(e.Found)
		e.Found = slices.Compact(e.Found)
		return install{}, e
	}
	return slices.MaxFunc(all, func(a, b install) int { return cmp.Compare(a.major, b.major) }), nil
}

// majorOf reads "postgresql-15"; 0 for an empty reference.
func majorOf(ref string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(ref, "postgresql-")) // validated with the object
	return n
}
