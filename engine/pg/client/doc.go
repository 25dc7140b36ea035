// SPDX-License-Identifier: Apache-2.0

// Package client asks a PostgreSQL server, over ordinary SQL connections, what
// the engine must know of it, and brackets base backups.
//
// # Invariants
//
//   - A Conn's session does not depend on the defaults of its user, database or
//     server: time zone, date style, search path and message language are set,
//     and no timeout of the server's can end it in the middle of a backup.
//   - Every call obeys its context: the server is sent a cancel request, so that
//     nothing goes on running there, and the session lives on if it answers.
//   - A backup belongs to the session that began it. If the session ends before
//     BackupStop, the server aborts the backup.
//   - No error holds the connection string or a password.
//
// Supported are PostgreSQL 13 to 18; functions that were renamed or removed on
// the way are called by the name the server knows.
package client
