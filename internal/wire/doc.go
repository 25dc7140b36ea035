// SPDX-License-Identifier: Apache-2.0

// Package wire reads binary tables that may be damaged. After the first fault
// everything reads as zero and Done says what it was, so that a parser is a plain
// list of what it reads, with one check at its end. No count that a table claims
// can make a caller allocate more than the table's own size allows.
//
// Tables are written with encoding/binary's Append functions.
package wire
