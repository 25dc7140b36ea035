// SPDX-License-Identifier: Apache-2.0

// Package receiver knows what one receiver of a Store's Watch was told, and what he is
// still to be told.
//
//	the place: Note(state) ─▶ news ─┬─▶ Next ─▶ an event ─▶ sent
//	                         told ──┘
//
// Events are not queued but derived from the difference of the two when the receiver is
// ready: his slowness costs memory for objects, not for changes, and the last state is
// never lost. An object that was made anew under the same name is told as gone first.
package receiver
