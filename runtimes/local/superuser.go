// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// initSuperuser is the role that initdb makes here. A restored server has that of its
// source.
const initSuperuser = "postgres"

// superuserOf is whom a server that this machine runs is looked after as.
func superuserOf(c *v1alpha1.Cluster) string { return cmp.Or(c.Status.Superuser, initSuperuser) }

// superuserLine begins the line of ownConf that names the superuser, for an agent whose
// objects are lost.
const superuserLine = "# superuser "

// readSuperuser finds the superuser in the settings that were written for this machine.
func readSuperuser(data string) (string, error) {
	path := filepath.Join(data, ownConf)
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if word, ok := strings.CutPrefix(strings.TrimSpace(line), superuserLine); ok {
			name, err := strconv.Unquote(word)
			if err != nil {
				return "", fmt.Errorf("%s: superuser %s: %w", path, word, err)
			}
			return name, nil
		}
	}
	return initSuperuser, nil
}

// roleWord is a role as pg_hba.conf and pg_ident.conf have it. In quotes a word is
// neither a keyword nor a group's, and its quotes are doubled; but from 16 on a slash
// begins a regular expression there too.
func roleWord(name string, major int) string {
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" && name != "all" {
		return name
	}
	if strings.HasPrefix(name, "/") && major >= 16 {
		name = "/^" + regexp.QuoteMeta(name) + "$"
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// hba lets the superuser in as ident says, and all others with their passwords.
func (s *server) hba() string {
	return fmt.Sprintf(`# written by kbcli
local  replication  %-16[1]s     peer map=kbcli
local  all          %-16[1]s     peer map=kbcli
local  all          all                  scram-sha-256
host   all          all   127.0.0.1/32   scram-sha-256
host   all          all   ::1/128        scram-sha-256
`, roleWord(s.superuser, s.major))
}
