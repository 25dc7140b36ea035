// SPDX-License-Identifier: Apache-2.0

package checkup

// Level is how bad a Finding is.
type Level string

// The levels. Fail: a promise is broken or cannot be made. Warn: it may be soon, or
// could not be looked at.
const (
	Pass Level = "pass"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is what a check found.
type Finding struct {
	Check    string `json:"check"` // the check's name, such as wal-level
	Level    Level  `json:"level"`
	Evidence string `json:"evidence"`       // what was seen, one line
	Next     string `json:"next,omitempty"` // what to do about it; empty where it passed
}

// Worst is the worst level of several findings; Pass for none.
func Worst(fs []Finding) Level {
	worst := Pass
	for _, f := range fs {
		if f.Level == Fail || f.Level == Warn && worst == Pass {
			worst = f.Level
		}
	}
	return worst
}
