// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds the nouns that people write: what they may say, what
// it means when they say nothing, and what is refused. It does no deeds.
//
//	apps.kubeblocks.io            Cluster       a PostgreSQL
//	dataprotection.kubeblocks.io  BackupPolicy  when it is saved, and for how long
//	                              Backup        one saving
//	                              BackupRepo    where savings live
//	extensions.kubeblocks.io      Addon         a piece that can be turned on
//
// Each object has a spec, what is wanted, written by people; and a status, what
// is, written by the agent or the operator. The same YAML serves one machine,
// where objects are files, and Kubernetes, where they are custom resources.
//
//	bytes ─ Decode ─▶ Object ─ SetDefaults ─▶ Validate ─▶ ValidateUpdate(old)
//	Object ─ Encode ─▶ bytes, fields in the order in which the types list them
//
// Invariants. Decode knows every field or refuses: a misspelt key is an error
// that names the right one, never a wish that is silently dropped. SetDefaults
// is idempotent, and what it leaves is valid if what it was given could be.
// Decode(Encode(o)) is o. Validate looks at the spec and the name only and asks
// nobody: whether a cluster exists is for others to find out. No secret has a
// field here: objects name the files and Secrets that hold them. What is valid
// in one release stays valid in the next, for the object may already be stored.
//
// Values are not safe for concurrent use.
//
// +kubebuilder:object:generate=true
// +kubebuilder:validation:Optional
// +versionName=v1alpha1
package v1alpha1
