// SPDX-License-Identifier: Apache-2.0

// Package testapt asks apt for packages in a directory of its own, for tests and what they
// run: the machine's package lists and installed packages are neither used nor touched.
//
//	<dir>/sources.list     where packages come from, and nowhere else
//	      status           what is installed: nothing
//	      state/ cache/    lists, archives
package testapt
