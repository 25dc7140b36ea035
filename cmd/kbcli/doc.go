// SPDX-License-Identifier: Apache-2.0

// Kbcli gives a PostgreSQL back at any moment of its past.
//
// This is only the door: signals and the exit code. Everything else is in cli.
// The first ^C or SIGTERM ends the work in order, the second at once.
package main
