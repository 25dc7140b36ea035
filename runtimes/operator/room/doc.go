// SPDX-License-Identifier: Apache-2.0

// Package room is how much room the volume of a pod has, and what that means.
//
//	agent ──statfs──▶ Use ──Annotation on its pod──▶ operator ──▶ status of the Cluster
//
// The agent asks, also while its server is down for want of room; it is the only one that
// sees the volume. The operator sums up, because it is the only one that sees all pods.
package room
