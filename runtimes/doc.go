// SPDX-License-Identifier: Apache-2.0

// Package runtimes names what a place where clusters live can do beyond keeping
// their objects. There are two: one machine (local) and Kubernetes. The verbs of
// the command line are written once, against this.
package runtimes
