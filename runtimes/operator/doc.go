// SPDX-License-Identifier: Apache-2.0

// Package operator brings what runs on Kubernetes into line with Clusters, BackupRepos and
// the rest. It looks, judges and does:
//
//	objects, pods ─▶ seen ─▶ judge, nextStep, size … ─▶ API server
//	                 (a value)   (pure)
//
// What a cluster is made of stands in specs. What one cluster's servers do among each
// other is Patroni's: the operator takes no part in a failover, and a cluster goes on
// without an operator. It makes the objects, hands Patroni its settings, restarts pods
// one by one with the primary last, and says how things stand.
//
// A repository on a volume claim is served by a pod of its own: see volumes.
//
// Several operators may run; one acts, whoever holds the lease. Each loop can be ended
// anywhere and begun again: what is to be done is seen in the objects, and nothing is
// remembered but what has been applied, to ask less.
//
// Invariants.
//
// A volume is removed only with its cluster, and only where the termination policy says
// so. A cluster's pods are given the keys of the repositories that it uses, and of no other:
// where its policies send backups, where its backups lie, and while it is restored those of
// its source. What a restore's target means is found out before anything is made for it, and
// one that cannot be says why and makes nothing; no volume that was there before its cluster
// is taken for restored data, or goes with that cluster. A pod is ended only when all others serve, or when it does not serve itself. Where
// data is missing that was there, no empty server is made in its place.
package operator
