// SPDX-License-Identifier: Apache-2.0

// Package replication receives WAL from a server as a standby does: the client
// side of PostgreSQL's physical replication protocol.
//
//	Connect ── IdentifySystem, Show, ReadSlot, CreateSlot, TimelineHistory …
//	   │
//	   └─ Start(slot, timeline, LSN) ── Stream
//	          ▲                           │ Receive: Data, Keepalive … EndOfTimeline
//	          │                           │ Status:  write, flush, apply positions
//	          └───────────────────────────┘ after EndOfTimeline or a server's error
//
// # Invariants
//
//   - Nothing is acknowledged that the caller did not pass to Status.
//   - The bytes of a Stream follow each other without a gap, from StartOptions.LSN
//     on; a server that sends others is an error.
//   - A cancelled Receive loses nothing: the next one goes on where it was.
//   - Nothing on the path of the WAL allocates: Bytes points into the buffer
//     that the socket was read into, and holds until the next Receive.
//   - The position to start from is the caller's, from what it has stored. The
//     server's flush position and a slot's restart_lsn are not it: before 18 a
//     slot that lost WAL is accepted again and begins anew, behind a hole.
//
// # Concurrency
//
// One goroutine may call Receive while another calls Status; neither waits for
// the other. Everything else on a Conn and its Stream is for one goroutine at a
// time. Close may be called by any, once or often, and ends what is blocked.
//
// Protocol: https://www.postgresql.org/docs/current/protocol-replication.html,
// src/backend/replication/walsender.c of PostgreSQL 13 to 18.
package replication
