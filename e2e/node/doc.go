// SPDX-License-Identifier: Apache-2.0

// Command node runs a real Kubernetes on a machine without a container engine, until it
// is told to stop:
//
//	go run ./e2e/node build            the programs, once for each version of parts/
//	go run ./e2e/node up [--nodes 2]   prints how to reach it
//	go run ./e2e/node status
//	go run ./e2e/node kubectl ARGS...  with the cluster's own kubectl
//	go run ./e2e/node down
//
// All of it is internal/testkube, which tests call; the test here is that a node comes up,
// runs pods with volumes, and leaves nothing behind. README.md says what is where and why.
package main
