// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// describeArchive shows what follows the page's sections: how archiving stands, what is
// missing, the last backup, and the conditions. What is not known yet has no section.
func (a *app) describeArchive(c *v1alpha1.Cluster, section func(string, *table)) {
	s := &c.Status
	if s.Archive != nil {
		section("Archive", archiveTable(s.Archive))
		if len(s.Archive.Gaps) > 0 {
			section("Gaps", a.gapTable(s.Archive.Gaps))
		}
	}
	if s.LastBackup != "" {
		t := &table{header: []string{"NAME", "COMPLETION-TIME"}}
		t.add(s.LastBackup, a.at(s.LastBackupTime.Time))
		section("Last Backup", t)
	}
	if len(s.Conditions) > 0 {
		t := &table{header: []string{"TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"}}
		for _, d := range s.Conditions {
			t.add(d.Type, string(d.Status), d.Reason, a.at(d.LastTransitionTime.Time), d.Message)
		}
		section("Conditions", t)
	}
}

func archiveTable(st *v1alpha1.ArchiveStatus) *table {
	t := &table{header: []string{"STATE", "LAG", "SPOOL", "REPOSITORY", "LAST-ERROR"}}
	repository := ""
	if st.RepositoryLSN != "" && st.RepositoryLSN != "0/0" {
		repository = fmt.Sprintf("%s on timeline %d", st.RepositoryLSN, st.Timeline)
	}
	lag := "0 B"
	if st.LagBytes > 0 || st.LagSeconds > 0 {
		lag = fmt.Sprintf("%s, %s", v1alpha1.FormatSize(st.LagBytes), time.Duration(st.LagSeconds)*time.Second)
	}
	t.add(string(st.State), lag, v1alpha1.FormatSize(st.SpoolBytes), repository, st.LastError)
	return t
}

// gapTable names what no moment can be brought back of.
func (a *app) gapTable(gaps []v1alpha1.Gap) *table {
	t := &table{header: []string{"TIMELINE", "FROM", "TO", "FOUND", "REASON"}}
	for _, g := range gaps {
		t.add(fmt.Sprint(g.Timeline), g.From, g.To, a.at(g.Time.Time), strings.TrimSpace(g.Reason))
	}
	return t
}
