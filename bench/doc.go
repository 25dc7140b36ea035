// SPDX-License-Identifier: Apache-2.0

// Program bench has kbcli and the tools beside it do the same work on the same
// server, in one run, and prints what it took.
//
//	data set ─▶ server ─▶ for each run: each tool once, in turn ─▶ rows ─▶ medians, ratios
//
//	go run ./bench -quick            # everything, small, about seven minutes
//	go run ./bench full              # one test, at full size
//	go run ./bench -h
//
// The tests are files of their own: full, s3, incremental, chain, delta, pitr, archive,
// rpo. What -json keeps becomes the README's table and chart:
//
//	go run ./bench -json RESULTS.json …     a test takes the place of its last run
//	go run ./bench report RESULTS.json README.md docs/img/bench.svg
//
// What keeps it fair. All tools read the same server, with the same page cache; each
// says itself how it was set (README.md has the table). All sync what they write, or are
// followed by a sync that counts as theirs; all check the pages' checksums. Runs are
// interleaved, and each begins with another tool. A backup begins after a checkpoint and a
// sync. A restore is done when the new server answers and is no longer in recovery.
//
// What is judged. A goal is the ratio of kbcli's median and that of the best of the other
// tools that compress as strongly: Barman 3.4 stores what it takes as it is, and has lines
// of its own. To copy the bytes, to compress them, and to have all WAL there already are
// limits and no tools; they are the best of nothing and have lines of their own too. Where
// something must never happen, the worst of all runs is judged.
//
// What is counted. Wall is what a user waits for. CPU is that of a command and all its
// children, of kbcli's agent besides; what the server spends on top is told apart. While
// WAL is archived it is that of kbcli's agent, and of all that pgBackRest starts: the
// server's archiver with its children, and the asynchronous processes that leave it, which
// a reaper above the server takes (reaper.go).
// Read and written are the bytes of read and write calls, whether a disk or the page
// cache gave them. Machines are loaded and differ: only ratios within one run mean
// anything, and CPU seconds and bytes more than wall time.
//
// A server that replays waits for WAL while its startup process has a child: that is
// restore_command, whoever gave it. It is looked at every two milliseconds (replay.go).
//
// A host is lost by killing what archives on it, then the server, and removing the data
// directory and what the tool keeps beside it. A client numbers rows and notes when each was
// acknowledged; what is lost is the time from the last row that is restored to the last that
// was acknowledged.
package main
