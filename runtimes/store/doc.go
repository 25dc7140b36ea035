// SPDX-License-Identifier: Apache-2.0

// Package store is where the objects of api/v1alpha1 live: YAML files on one
// machine, the API server on Kubernetes. Verbs write objects here and wait for
// their status; the agent and the operator watch, act, and write the status.
//
//	cli ── Create, Update, Delete ──▶ Store ── Watch ──▶ agent, operator
//	cli ◀── Watch, Get, List ──────── Store ◀── UpdateStatus ──┘
//
//	files/      a directory of YAML
//	kube/       custom resources of the Kubernetes API
//	receiver/   what one who watches was told, for both
//	storetest/  what every Store must pass
//
// Invariants, the same in every Store, which are those of Kubernetes.
//
// An object has one writer at a time: Update and UpdateStatus take the object as
// it was read, with its resourceVersion, and are a conflict when somebody was
// faster. Mutate reads again and tries again. A resourceVersion is an opaque text.
//
// The spec belongs to people and the status to the agent: Update leaves the
// status alone, UpdateStatus everything else. The generation grows with each
// change of the spec, and the status says which one it is about.
//
// Create and Update set defaults and validate, so that nothing invalid is stored.
//
// An object with finalizers is not removed by Delete, only marked. It goes when
// the last finalizer does, and its name is free again then.
//
// Watch tells of every object's last state. States in between may be left out.
//
// The errors are those of k8s.io/apimachinery/pkg/api/errors, with the same
// words on every Store: IsNotFound, IsAlreadyExists, IsConflict and IsInvalid of
// that package tell them apart.
package store
