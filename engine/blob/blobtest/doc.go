// SPDX-License-Identifier: Apache-2.0

// Package blobtest is what every place for bytes must pass, and every wrapper
// around one.
package blobtest
