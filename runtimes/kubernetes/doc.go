// SPDX-License-Identifier: Apache-2.0

// Package kubernetes is Kubernetes as a place where clusters live, as the command line
// sees it: it writes objects, looks at what the operator made of them, and reaches the
// servers through the API server.
//
//	cli ── store/kube ──▶ API server ──▶ operator, which acts
//	 │                        ▲
//	 ├── pods, events, logs ──┤
//	 ├── psql, SQL ─ a stream of the port-forward protocol ─▶ the primary's pod
//	 └── questions about the past ─ exec ─▶ kbcli beside the server, which has the repository
//
// Questions go to the pod of the primary, of a standby where much is read, and to the operator
// where the cluster is gone or its pods lack the keys. It takes the right to run commands in
// them; who lacks it is told which. `doctor` tells what the objects tell then.
//
//	names/  what the operator calls the things it makes
//	ask/    the questions and answers of the last line
//
// Invariants.
//
// Nothing runs on the machine of whoever types but what is typed: no port is opened, and
// the way to a server ends with the command. The socket that psql connects to lies in a
// directory that only its user can enter.
//
// The password of a superuser is read from its Secret when it is needed, and goes to
// PostgreSQL, or to psql in its environment; it is on no command line, here or in a pod.
//
// Nothing is asked of the API server before somebody needs the answer.
package kubernetes
