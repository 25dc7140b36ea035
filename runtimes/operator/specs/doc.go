// SPDX-License-Identifier: Apache-2.0

// Package specs says which Kubernetes objects a Cluster is made of. It is pure: the
// same Cluster gives the same objects, to the byte, and nothing is asked of anybody.
// The loops of runtimes/operator bring a cluster into line with what stands here.
//
//	Cluster my-pg ─▶ StatefulSet my-pg-postgresql        pods my-pg-postgresql-0, -1, …
//	                 Service     my-pg-postgresql        the primary; Patroni writes its Endpoints
//	                 Service     my-pg-postgresql-replicas, -config, -pods
//	                 Secret      my-pg-postgresql-superuser, -replication, -repositories
//	                 ConfigMap   my-pg-postgresql        Patroni's configuration
//	                 PodDisruptionBudget, ServiceAccount, Role, RoleBinding, ClusterRoleBinding
//
// A pod has two containers on one volume. One runs Patroni and PostgreSQL, the other
// `kbcli agent pod`, which reaches the server by its socket, as the same user: no
// password is between them. Before them run `kbcli-copy`, which puts the program where
// the image of PostgreSQL can run it, and `volume`, which makes or restores the data
// directory with that image's own binaries.
//
// Patroni keeps what it knows in Endpoints. The address of the primary's Service is in
// the object that also is the leader's lock: one write moves both, so that the
// Service never leads to two servers, as it may where it follows a label on the pods of
// a node that is cut off. For people and for the other Service the label stands there too.
//
// Invariants.
//
// No password is in any object but a Secret, none is an argument of a program. Pods run
// under the pod security standard "restricted". What each right is needed for stands in
// the table of rights.go, and the Roles are made from it.
//
// The pod template changes only when the pods have to be made anew. Settings are no part
// of it: Patroni is given those while it runs.
package specs
