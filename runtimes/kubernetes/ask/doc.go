// SPDX-License-Identifier: Apache-2.0

// Package ask carries questions about a cluster's past to where its repository can be
// read. Whoever types may have neither the credentials of the bucket nor a way to it; the
// kbcli beside each server has both.
//
//	command line ── question, JSON, stdin ──▶ kbcli in a pod: Serve
//	             ◀── answer, JSON, stdout ───      │
//	                                               └─▶ the repository
//
// Both ends are the same program, if not of the same release: a field that one of them
// does not know is passed over, and an error whose kind it does not know keeps its words.
//
// An error that people are told more about than its words (outside the window, a gap in
// the WAL) arrives as the type that it left as, so that the command line explains it as
// it does on one machine.
package ask
