// SPDX-License-Identifier: Apache-2.0

// Package examination gathers what the checks of `doctor` are told of, the same on every
// runtime: of a cluster and its server, of a repository, of the objects about them.
//
//	objects ─▶ Scene ─┬─ Cluster, beside the server ─▶ engine/checkup ─▶ findings
//	                  └─ Repository, where its keys are
//
// Nothing is changed. What does not answer within Patience is told so.
package examination
