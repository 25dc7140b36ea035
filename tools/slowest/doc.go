// SPDX-License-Identifier: Apache-2.0

// Command slowest reads go test -json on its input and prints what go test would
// have: a line for each package, and the whole output of each test that failed.
// At the end come the skipped tests, the ten slowest and the totals.
//
//	go test -json ./... | slowest
//
// It exits 1 if a test or a build failed, if a package broke off, or if there
// was nothing at all; and, when CI is set, if a test was skipped. A test that
// does not run proves nothing.
package main
