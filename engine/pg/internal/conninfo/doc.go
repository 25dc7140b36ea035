// SPDX-License-Identifier: Apache-2.0

// Package conninfo is about connection strings: it changes words of them, keeps them
// and the passwords in them out of error texts, and lets root connect as the account
// that runs a server.
package conninfo
