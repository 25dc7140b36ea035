// SPDX-License-Identifier: Apache-2.0

package checkup

import "time"

// Machine is what a server's restores and times stand on.
type Machine struct {
	Names
	// Server is the server's clock, Here this machine's when it was asked; both are
	// zero when nobody could ask. Proven is the last time that the archive had from
	// the server.
	Server, Here, Proven time.Time
	// Synchronised is what the kernel says of this machine's clock; nil when it does
	// not say.
	Synchronised *bool

	Major       int
	Programs    string // the directory of PostgreSQL's programs of that release
	ProgramsErr error

	Need, Free int64  // bytes that a restore of the last backup takes, and that there are
	Room       string // where
	RoomErr    error
}

// apart is how much two clocks may differ before it is worth a word.
const apart = 2 * time.Second

// Findings are clock, server-programs and restore-room.
func (m *Machine) Findings() []Finding {
	return []Finding{m.Times(), m.programs(), m.room()}
}

// Times is clock, for where nothing else is known of the machine.
func (m *Machine) Times() Finding {
	const check = "clock"
	if m.Server.IsZero() {
		return warn(check, m.logs(), "the server could not be asked for its clock")
	}
	offset := m.Server.Sub(m.Here)
	switch {
	case m.Proven.Sub(m.Server) > apart:
		return warn(check, "date; timedatectl", "the server's clock was set back: it says %s, and said %s before: a moment between the two is ambiguous", stamp(m.Server), stamp(m.Proven))
	case offset.Abs() > apart:
		return warn(check, "date; timedatectl", "the server's clock and this machine's are %s apart: times of restores are the server's", span(offset))
	}
	seen := "the server's clock is this machine's"
	switch {
	case m.Synchronised == nil:
	case *m.Synchronised:
		seen += ", which is synchronised"
	default:
		seen += ", of which the kernel does not know that it is synchronised"
	}
	return pass(check, "%s", seen)
}

func (m *Machine) programs() Finding {
	const check = "server-programs"
	if m.ProgramsErr != nil {
		return fail(check, line("apt-get install postgresql-%d", m.Major), "a restore needs PostgreSQL %d: %v", m.Major, m.ProgramsErr)
	}
	return pass(check, "PostgreSQL %d in %s", m.Major, m.Programs)
}

func (m *Machine) room() Finding {
	const check = "restore-room"
	switch {
	case m.RoomErr != nil:
		return warn(check, "df -h", "whether there is room to restore is not known: %v", m.RoomErr)
	case m.Need == 0:
		return pass(check, "%s are free in %s; there is no backup to restore", size(m.Free), m.Room)
	case m.Free < m.Need:
		return warn(check, "df -h "+shellWord(m.Room), "a restore takes %s beside the old data, and %s are free in %s", size(m.Need), size(m.Free), m.Room)
	}
	return pass(check, "a restore takes %s, and %s are free in %s", size(m.Need), size(m.Free), m.Room)
}
