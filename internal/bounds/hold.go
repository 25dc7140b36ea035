// SPDX-License-Identifier: Apache-2.0

package bounds

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// ledger is what is held in this process.
var ledger struct {
	mu    sync.Mutex
	n     int
	held  int64
	base  int64 // what the process took when the first began
	limit int64 // of Go before that
}

// Hold has Go keep the process to what it takes now and b's memory, until release is
// called; several at once add up. A limit that is lower already (GOMEMLIMIT) stays. What
// the rest of the process needs beside costs time then, and is given. The work is to be
// done with the Bounds that it returns.
func (b Bounds) Hold() (held Bounds, release func()) {
	ledger.mu.Lock()
	defer ledger.mu.Unlock()
	if ledger.n == 0 {
		debug.FreeOSMemory()
		ledger.base = taken()
		ledger.limit = debug.SetMemoryLimit(-1)
	}
	n := most(b.memory())
	ledger.n++
	ledger.held += n
	set()
	b.grow = func(memory int64) {
		ledger.mu.Lock()
		defer ledger.mu.Unlock()
		more := max(most(memory)-n, 0)
		n += more
		ledger.held += more
		set()
	}
	return b, sync.OnceFunc(func() {
		ledger.mu.Lock()
		defer ledger.mu.Unlock()
		ledger.n--
		ledger.held -= n
		set()
	})
}

// set sets the limit. The caller holds the ledger.
func set() {
	limit := ledger.limit
	if ledger.n > 0 && ledger.base <= math.MaxInt64-ledger.held {
		limit = min(limit, ledger.base+ledger.held)
	}
	debug.SetMemoryLimit(limit)
}

// taken is what Go has from the system, as its limit counts it.
func taken() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}
