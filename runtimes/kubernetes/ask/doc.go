// SPDX-License-Identifier: Apache-2.0

// Package ask carries questions about a cluster's past to where its repository can be
// read. Whoever types may have neither the credentials of the bucket nor a way to it; the
// kbcli beside each server has both.
//
//	command line ── question, JSON, stdin ──▶ kbcli in a pod: Serve
//	             ◀── answer, JSON lines, stdout ──│
//	             ── a line now and then ─────────▶└─▶ the repository
//
// A long answer (a history, how far a verification is) comes in lines, each of bounded
// length; all but the last say that there is more, so that one which ends in the middle
// is known. Whoever asks holds stdin open and writes a line now and then: when it ends, or
// nothing comes any more, so does the answer. Nothing goes on for nobody.
//
// Both ends are the same program, if not of the same release: a field that one of them
// does not know is passed over, and an error whose kind it does not know keeps its words. A
// topic that the far side does not know is an error of its own: it is older.
//
// An error that people are told more about than its words (outside the window, a gap in
// the WAL) arrives as the type that it left as, so that the command line explains it as
// it does on one machine.
package ask
