// SPDX-License-Identifier: Apache-2.0

// Package bounds is what one backup or one restore may take of the machine that it runs
// on: memory, bytes a second to and from the repository, workers, and how far it steps
// back for others who want the processor and the disk.
//
// Memory is kept on two levels. Who does the work sizes its buffers by Bounds.Memory, so
// that what it needs at once is at most five eighths of that, and refuses what cannot
// be done with it (MemoryError). Who runs it holds that memory meanwhile (Hold): Go then
// collects what is no longer needed before the process takes more than it had when the
// work began, and what is held.
package bounds
