// SPDX-License-Identifier: Apache-2.0

// Package disasters loses things and looks at what is left: a server under load, a
// fault, a restore, and a judge that knows from the clients' side what must be
// there. README.md tells which disaster is in which test, and what they found.
//
//	traffic   clients that write a row a transaction and keep a ledger of it:
//	          when it was sent, when it was acknowledged
//	fault     what is killed, removed or broken, and when
//	model     what the ledger says must, may and must not be there
//	validate  the restored server is asked, and checked with PostgreSQL's own tools
//
// Client, server and judge have one clock, that of the machine. Nothing of the product
// is stubbed but the store's failures.
package disasters
