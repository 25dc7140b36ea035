// SPDX-License-Identifier: Apache-2.0

package local

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWhyNot(t *testing.T) {
	for log, want := range map[string]string{
		"1 LOG:  starting\n2 LOG:  listening\n3 LOG:  b\n4 LOG:  c\n5 LOG:  d\n":                                                                                                                   "2 LOG:  listening; 3 LOG:  b; 4 LOG:  c; 5 LOG:  d",
		"1 LOG:  starting\n2 FATAL:  replication slot \"s\" exists, but wal_level < replica\n2 HINT:  Change wal_level to be replica or higher.\n3 LOG:  shut down\n4 HINT:  of nothing\n":         `FATAL: replication slot "s" exists, but wal_level < replica; HINT: Change wal_level to be replica or higher.`,
		"1 LOG:  could not bind IPv4 address \"127.0.0.1\": Address already in use\n1 HINT:  Is another postmaster already running on port 5432?\n1 FATAL:  could not create any TCP/IP sockets\n": `LOG: could not bind IPv4 address "127.0.0.1": Address already in use; HINT: Is another postmaster already running on port 5432?; FATAL: could not create any TCP/IP sockets`,
	} {
		if got := whyNot(log); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestListens(t *testing.T) {
	s := &server{data: t.TempDir()}
	for text, want := range map[string]int32{
		"12\n/data\n1700000000\n5999\n/run\n127.0.0.1\n": 5999, "12\n/data\n17": 0, "12\n/data\n17\nport\n": 0, "": 0,
	} {
		if err := os.WriteFile(filepath.Join(s.data, "postmaster.pid"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := s.listens(); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
