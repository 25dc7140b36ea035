// SPDX-License-Identifier: Apache-2.0

// Package childproc starts processes that must not outlive the one that starts them.
package childproc
