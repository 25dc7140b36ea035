// SPDX-License-Identifier: Apache-2.0

// Package testkube gives tests a real Kubernetes on a machine that has no container
// engine and can pull no image.
//
//	c := testkube.Control(t) // etcd and an API server: seconds, no root needed
//	n := testkube.Node(t)    // the whole node: pods, volumes, snapshots, DNS; root
//
// # Where the programs come from
//
// e2e/node/parts is a Go module of its own that requires Kubernetes, CoreDNS, the CSI
// snapshot controllers and holds our CSI driver. Parts builds it once and keeps the
// programs in kbcli-test/node of the user's cache directory, under a name that is a hash
// of the sources and go.sum. A cold build takes about 700 CPU-seconds, more than the
// ten minutes that go test gives a package on a busy machine: `go run ./e2e/node build`
// comes first, as in `make test`. Processes that want it at the same time wait for one.
//
// # Who keeps what
//
// A process that this package starts is this very program again, told its role by an
// environment variable that init looks at:
//
//	go test ── keeper ─┬─ etcd                  Control: the keeper ends with its parent,
//	                   └─ kube-apiserver        its children with it, and its directory
//
//	go test ── keeper ── init ── inside ─┬─ etcd, kube-apiserver, kubelet, ...
//	             │        │              └─ containerd ── shims ── pods
//	             │        └ process 1 of a PID, mount and network namespace: when it
//	             │          ends the kernel ends everything in them, mounts as well
//	             └ removes what no namespace holds: cgroups and the directory
//
// Invariants. Nothing outlives the test process, also when that is killed. Each run has
// fresh data. What listens, listens on loopback or inside the node's network namespace,
// which has no route out. Nothing of the machine is changed: no sysctl, no file outside
// the run's directory, no cgroup but its own. Nothing here skips a test.
package testkube
