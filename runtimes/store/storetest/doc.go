// SPDX-License-Identifier: Apache-2.0

// Package storetest is what every store.Store must pass. It holds the stores to
// one behaviour, so that a verb or a loop that is tested on files works on
// Kubernetes.
//
//	func TestStore(t *testing.T) { storetest.Run(t, func(t *testing.T) store.Store { … }) }
//
// The tests use the namespaces default and kube-public, which every Kubernetes
// has, and want a store that is empty when it is handed over. Nothing else may
// write to it.
package storetest
