// SPDX-License-Identifier: Apache-2.0

// Package machine tests kbcli on a machine of its own: the Debian package is installed,
// upgraded and removed where the real systemd is process 1, and the machine is
// switched off without warning.
//
// The machine is this one's files under an overlay in memory, with process, mount and
// control group namespaces of its own; nothing that happens there is seen outside or
// left behind. Of the units there are only the targets that services hang on. Its
// network is this machine's, and is not used. It takes root, Linux with overlayfs, and
// Debian's systemd and dpkg.
//
//	this test ── unshare --mount: the overlay, for as long as the test lasts
//	               └── unshare --pid --cgroup …: systemd; killed and started again, that is a power cut
package machine
