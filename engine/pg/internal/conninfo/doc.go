// SPDX-License-Identifier: Apache-2.0

// Package conninfo keeps connection strings, and the passwords in them, out of
// error texts.
package conninfo
