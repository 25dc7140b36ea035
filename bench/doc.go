// SPDX-License-Identifier: Apache-2.0

// Program bench has kbcli and the tools beside it do the same work on the same
// server, in one run, and prints what it took.
//
//	data set ─▶ server ─▶ for each run: each tool once, in turn ─▶ rows ─▶ medians, ratios
//
//	go run ./bench -quick            # everything, small, about five minutes
//	go run ./bench full              # one test, at full size
//	go run ./bench -h
//
// The tests are files of their own: full, s3, incremental, chain, pitr,
// archive.
//
// What keeps it fair. All tools read the same server, with the same page cache; each
// says itself how it was set (README.md has the table). All sync what they write, or are
// followed by a sync that counts as theirs; all check the pages' checksums. Runs are
// interleaved, and each begins with another tool. A backup begins after a checkpoint and a
// sync. A restore is done when the new server answers and is no longer in recovery.
//
// What is counted. Wall is what a user waits for. CPU is that of a command and all its
// children, of kbcli's agent besides; what the server spends on top is told apart.
// Read and written are the bytes of read and write calls, whether a disk or the page
// cache gave them. Machines are loaded and differ: only ratios within one run mean
// anything, and CPU seconds and bytes more than wall time.
package main
