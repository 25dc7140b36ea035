// SPDX-License-Identifier: Apache-2.0

// Package mem is a place for bytes in memory. It keeps every promise of
// blob.Store but the power cut, and is for tests.
package mem
