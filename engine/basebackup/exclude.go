// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"path"
	"strings"
)

// emptied are directories of which only themselves are kept: what is in them
// belongs to the running server (src/backend/backup/basebackup.c).
var emptied = map[string]bool{
	"pg_wal": true, "pg_replslot": true, "pg_dynshmem": true, "pg_notify": true, "pg_serial": true,
	"pg_snapshots": true, "pg_stat_tmp": true, "pg_subtrans": true,
}

// skipped are files that must not be in a backup.
var skipped = map[string]bool{
	"postmaster.pid": true, "postmaster.opts": true, "postgresql.auto.conf.tmp": true, "current_logfiles.tmp": true,
	"backup_label": true, "backup_label.old": true, "tablespace_map": true, "tablespace_map.old": true,
	"backup_manifest": true, "recovery.signal": true, "standby.signal": true, "recovery.conf": true, "recovery.done": true,
}

// excluded tells whether an entry of a data directory is left out: dir is its
// directory relative to the data directory ("" at the top), name its own.
func excluded(dir, name string) bool {
	if dir == "" && skipped[name] {
		return true
	}
	return strings.HasPrefix(name, "pgsql_tmp") || strings.HasPrefix(name, "pg_internal.init")
}

// LeftOut tells whether a path of a data directory is not part of a backup: what belongs
// to the running server, temporary relations and files. Unlogged relations are, for they
// cannot be told by their path; a server empties them when it has recovered.
func LeftOut(p string) bool {
	dir, name := path.Split(p)
	dir = strings.TrimSuffix(dir, "/")
	if excluded(dir, name) || emptied[dir] && p != "pg_wal/archive_status" || dir == "pg_wal/archive_status" {
		return true
	}
	if !relationDir(dir) {
		return false
	}
	_, _, _, temporary, ok := relationFile(name)
	return ok && temporary
}

// relationFile takes a file name of a relation apart: "16384", "16384.1",
// "16384_fsm", "16384_init", "16384_vm.1". temporary is for "t3_16384".
func relationFile(name string) (number, fork string, segment uint32, temporary, ok bool) {
	rest := name
	if strings.HasPrefix(rest, "t") {
		backend, after, found := strings.Cut(rest[1:], "_")
		if !found || !digits(backend) {
			return "", "", 0, false, false
		}
		temporary, rest = true, after
	}
	if base, seg, found := strings.Cut(rest, "."); found {
		if !digits(seg) || seg[0] == '0' || len(seg) > 6 {
			return "", "", 0, false, false
		}
		for _, c := range seg {
			segment = segment*10 + uint32(c-'0')
		}
		rest = base
	}
	number, fork, _ = strings.Cut(rest, "_")
	switch fork {
	case "", "fsm", "vm", "init":
	default:
		return "", "", 0, false, false
	}
	if !digits(number) || strings.HasSuffix(rest, "_") {
		return "", "", 0, false, false
	}
	return number, fork, segment, temporary, true
}

func digits(s string) bool {
	if s == "" || len(s) > 10 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// relationDir tells whether files named by numbers in dir are relations: "global",
// "base/5", "pg_tblspc/16400/PG_15_202209061/5".
func relationDir(dir string) bool {
	parts := strings.Split(dir, "/")
	switch {
	case dir == "global":
		return true
	case len(parts) == 2 && parts[0] == "base":
		return digits(parts[1])
	case len(parts) == 4 && parts[0] == "pg_tblspc":
		return strings.HasPrefix(parts[2], "PG_") && digits(parts[3])
	}
	return false
}
