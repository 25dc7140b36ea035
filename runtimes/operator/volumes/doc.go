// SPDX-License-Identifier: Apache-2.0

// Package volumes is the volumes of Kubernetes that repositories are on: what serves one,
// as objects of Kubernetes and as the program in them.
//
//	BackupRepo r ─▶ PersistentVolumeClaim   in the operator's namespace
//	                StatefulSet repository-r   one pod, which mounts it: kbcli agent serve-repository
//	                Service     repository-r   ◀── TLS, a token ── operator, agents, restores
//	                Secret      repository-r   the server's key; what clients need is a file among
//	                                           the credentials of repositories
//
// One pod mounts the volume, and all others reach it over the network: see
// docs/decisions/0009. The objects belong to the BackupRepo and go with it. The claim
// does not: the backups are in it. Whoever names it again has them back.
//
// The pod asks nothing of the Kubernetes API, and has no token for it. While it is away
// WAL gathers in the spools of the clusters, as it does for a bucket that does not answer.
package volumes
