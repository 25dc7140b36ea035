// SPDX-License-Identifier: Apache-2.0

package testpg

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestEveryRelease(t *testing.T) {
	for major := 13; major <= 18; major++ {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			s := Start(t, Options{Major: major})
			var got int
			s.QueryRow(t, "select current_setting('server_version_num')::int / 10000", &got)
			if got != major {
				t.Errorf("the server is of release %d, not %d", got, major)
			}
			var checksums, level, fsync string
			s.QueryRow(t, "select current_setting('data_checksums'), current_setting('wal_level'), current_setting('fsync')", &checksums, &level, &fsync)
			if checksums != "on" || level != "replica" || fsync != "off" {
				t.Errorf("data_checksums = %s, wal_level = %s, fsync = %s", checksums, level, fsync)
			}
			s.Exec(t, "create table t (i int)")
			s.Exec(t, "insert into t select generate_series(1, 1000)")

			standby := Standby(t, s)
			s.Exec(t, "insert into t values (1001)")
			standby.CatchUp(t, s)
			wantRows(t, standby, 1001)
			standby.Promote(t)
			standby.Exec(t, "insert into t values (1002)")
			wantRows(t, standby, 1002)

			s.Exec(t, "insert into t values (1002), (1003)")
			s.Kill9(t)
			if s.PID() != 0 {
				t.Error("the killed server has a process")
			}
			s.Start(t)
			wantRows(t, s, 1003)
			if !strings.Contains(s.Log(), "was not properly shut down") {
				t.Error("the log tells of no crash")
			}
		})
	}
}

func wantRows(t *testing.T, s *Server, want int) {
	t.Helper()
	var got int
	s.QueryRow(t, "select count(*) from t", &got)
	if got != want {
		t.Errorf("%d rows, want %d", got, want)
	}
}

func TestOptions(t *testing.T) {
	s := Start(t, Options{
		SegmentSizeMB: 1,
		NoChecksums:   true,
		Fsync:         true,
		Settings:      map[string]string{"application_name": "it's", "work_mem": "5MB"},
		InitdbArgs:    []string{"--allow-group-access"},
	})
	var segment, checksums, fsync, name, mem string
	s.QueryRow(t, "select current_setting('wal_segment_size'), current_setting('data_checksums'), current_setting('fsync'), current_setting('application_name'), current_setting('work_mem')",
		&segment, &checksums, &fsync, &name, &mem)
	if got := [...]string{segment, checksums, fsync, name, mem}; got != [...]string{"1MB", "off", "on", "it's", "5MB"} {
		t.Errorf("settings are %q", got)
	}
	if st, err := os.Stat(s.DataDir); err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("data directory: %v, %v", st, err)
	}
	s.Set(t, map[string]string{"work_mem": "6MB"})
	s.Restart(t)
	s.QueryRow(t, "select current_setting('work_mem')", &mem)
	if mem != "6MB" {
		t.Errorf("work_mem is %s after the restart", mem)
	}
	if n := len(filepath.Join(s.SocketDir, fmt.Sprintf(".s.PGSQL.%d", s.Port))); n >= 100 {
		t.Errorf("the socket's path has %d bytes", n)
	}
}

func TestStartAt(t *testing.T) {
	s := Start(t, Options{})
	s.Exec(t, "create table t as select generate_series(1, 10) i")
	s.Stop(t, Fast)
	other := StartAt(t, s.DataDir, Options{Settings: map[string]string{"work_mem": "7MB"}})
	wantRows(t, other, 10)
	if other.Port == s.Port && other.SocketDir == s.SocketDir {
		t.Error("the second server listens where the first did")
	}
}

func TestNothingIsLeft(t *testing.T) {
	var pid int
	var dir string
	t.Run("server", func(t *testing.T) {
		s := Start(t, Options{})
		pid, dir = s.PID(), s.SocketDir
	})
	if alive(pid) {
		t.Errorf("process %d is left", pid)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", dir, err)
	}
}

func TestWaldump(t *testing.T) {
	for _, major := range []int{13, 15, 17, 18} {
		argv := append(Binaries(t, major).Waldump(t), "--version")
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), fmt.Sprintf(" %d.", major)) {
			t.Errorf("%q: %v\n%s", argv, err, out)
		}
	}
}
