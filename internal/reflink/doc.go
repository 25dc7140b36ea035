// SPDX-License-Identifier: Apache-2.0

// Package reflink makes a file share another's blocks: a copy that takes no time and
// no room, until one of the two is written (ioctl_ficlone(2)). XFS and btrfs can. Others
// say why not, as an *Error.
//
// A clone holds all of a file as it was at one instant: the kernel keeps writers out
// while it is made, and writes back first what is not on the disk yet.
package reflink
