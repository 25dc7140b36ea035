// SPDX-License-Identifier: Apache-2.0

// Package served is a place for bytes that another process reaches: a volume that is
// mounted on one machine alone, and is used from many.
//
//	Store ── HTTPS, a token ──▶ Handler ──▶ the Store behind it, such as fs
//
//	PUT    /v1/objects/KEY   Put with If-None-Match: *, Replace without
//	GET    /v1/objects/KEY   ?offset=N&length=N
//	DELETE /v1/objects/KEY
//	GET    /v1/stat/KEY      the Info, JSON
//	GET    /v1/list          ?prefix=P&after=K: an Info a line
//	GET    /v1/space         how large the place is, and what is left
//
// Invariants. What the place behind says of durability holds here: an answer is given when
// its verb has returned. That something is absent, there, full or missing is believed only
// of an answer that carries the header Kbcli-Fault, which no proxy and no page of errors
// has; any other failure is ErrUnreachable or, for 401 and 403, ErrDenied. A body or a list
// that breaks off is an error: both are sent in chunks, and the last one ends them.
//
// Both sides have the same certificate, which signs itself, and believe no other: the one
// has its key, the other knows it. The token is in no address and in no message. Both are
// read anew for each connection, and can be replaced while everything runs.
package served
