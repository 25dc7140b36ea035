// SPDX-License-Identifier: Apache-2.0

// Package cli is what people type and what they read: one file a command, flags
// in, tables out.
//
//	args ─▶ command ─▶ objects ─▶ runtimes.Runtime ─▶ store
//	                      │                             │ agent, operator act
//	        stdout ◀──────┴──── follow ◀── status ◀─────┘
//	        stderr ◀── notes, warnings, progress; error, hint, next
//
// Invariants.
//
// A verb writes objects and waits for their status; it never acts itself. It is
// written once, against runtimes.Runtime, whichever runtime that is.
//
// The answer is on stdout and nothing else is. Whatever time is printed, Parse of
// internal/humantime reads back.
//
// What an error is called, what helps, and the exit code stand in one table,
// errors.go. A command returns errors and prints none.
//
// Nothing is destroyed before the name was typed again or --auto-approve given.
//
// A secret is on no argv that kbcli makes, in no object, and in no SQL: a
// password leaves this program as a SCRAM verifier or in an environment.
//
// Nothing is opened, started or read before the arguments have been understood.
package cli
