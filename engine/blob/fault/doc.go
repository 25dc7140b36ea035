// SPDX-License-Identifier: Apache-2.0

// Package fault is a Store that fails on purpose, by rules:
//
//	f := fault.New(mem.New(nil), seed,
//		fault.Rule{Verb: blob.VerbPut, Nth: 3, Action: fault.FailAfter(nil)},
//		fault.Rule{Verb: blob.VerbGet, Key: "wal/", Chance: 0.1, Action: fault.Cut(100)},
//	)
//
// Each call is held against the rules in their order. A Delay is waited for and
// the next rules are looked at; the first other rule that applies decides. With
// the same seed and the same calls in the same order the same faults happen;
// calls made at once are counted in the order in which they arrive.
package fault
