// SPDX-License-Identifier: Apache-2.0

// Package kube is a store.Store over the Kubernetes API: the objects are custom
// resources, as deploy/helm/crds defines them.
//
//	Store ── Get, List, Create, Update, Delete ──▶ API server ──▶ etcd
//	  ▲                                                │
//	  └── watch: list, then a stream of changes ◀──────┘
//
// Invariants.
//
// What is read is decoded as strictly as a file on one machine: a field that this
// release does not know, or a value that Validate refuses, makes the object a
// *store.BrokenObject and is never dropped in silence. What is written has passed
// store.Admit, so that it is refused in the same words as on one machine; the schema
// of the API server is there for those who write without kbcli.
//
// The server decides who was faster: every write carries the resourceVersion that it
// is based on.
//
// A watch reads the stream as fast as it comes and keeps the newest state of each
// object until the receiver takes it. When the stream breaks it goes on where it was;
// when the server no longer knows that place (410 Gone) everything is listed again,
// and what went meanwhile is told as Deleted.
//
// Each request goes to one API group by a REST client of its own, and no client set of
// all of Kubernetes is linked: a command line starts in milliseconds.
package kube
