// SPDX-License-Identifier: Apache-2.0

// Package checkup has the named checks behind `doctor`, attaching a server, and the
// conditions of a cluster.
//
//	facts of a server, a repository, an archive, backups ─▶ check ─▶ Finding
//	                                                                 pass | warn | fail
//	                                                                 evidence, next step
//
// A check is asked for by what it needs to know, a value that somebody else
// gathered, wherever that is possible: it can then be told in a table test. Those
// that must ask a server or a store themselves take a context and a connection.
//
// Invariants. A check changes nothing, neither on the server nor in the repository.
// Its name never changes: scripts and alerts hold on to it. Evidence is what was
// seen, in the server's or the store's own words where they have some, and never
// holds a secret. Whatever does not pass says what to do next: a statement, a line
// of a file or a command that can be pasted. What could not be looked at is not
// passed: it is a Warn that says why.
package checkup
