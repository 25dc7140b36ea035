// SPDX-License-Identifier: Apache-2.0

// Package chapter rolls up what the indexes of many segments say. A chapter is of all
// segments of one timeline in one stretch of 4 GiB of WAL, a folder of the repository;
// it is written when each of them is stored whole and has its complete index, and from
// nothing else, so that the same indexes give the same bytes.
//
// Its key alone says which segments are there and what stretch of time they cover:
//
//	<first SEGMENT>-<earliest>-<latest>   µs since 1970, 16 hexadecimal digits each, of the
//	                                      ends of transactions; "none-none" if none ended
//
// Its body says for each segment, in order, what must be known to pass over it or to
// know that its index must be read:
//
//	"C1" │ timeline │ first segment │ n │ n × segment      numbers are uvarint
//
//	segment:  flags u8 │ [times │ xids] │ length │ index
//	  flags   1 transactions ended: times and xids follow; 2 some committed; 4 with subtransactions;
//	          8 brief: the index has all that is told below of recovery; 16 told: and of history
//	  times   the earliest, as varint difference to the one of the segment before; the latest, by
//	          how much it is later; how far an end was stamped before one that precedes it
//	  xids    the smallest; the greatest, by how much it is greater
//	  index   as package walindex encodes one, abridged
//
// Times and xids are of all that walindex calls transactions, with those that were prepared
// or are a part that was rolled back.
//
// An abridged index has of the whole one the head, and
//   - brief: restore points, parameters, tablespaces, changes of timelines; of the transactions
//     all that were prepared and their ends, the last that committed, the last two that ended,
//     and the first of those that ended latest by the clock;
//   - told, besides: databases made and dropped, tablespaces dropped, files made (main forks),
//     truncates, and the transactions that dropped files, changed pg_class, ended what is
//     listed here, or inserted, updated or deleted Rows rows of one relation, or more.
//
// A body is at most Limit bytes before it is compressed: where it would be more, what was
// told and then what is brief is left out of the segments that have most of it.
package chapter
