// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"errors"
)

// Reader reads B from its start.
type Reader struct {
	B   []byte
	err error
}

// Err is the first fault, nil while there was none.
func (c *Reader) Err() error { return c.err }

// Len is how many bytes are left.
func (c *Reader) Len() int { return len(c.B) }

// Fail notes a fault, unless there was one before.
func (c *Reader) Fail(reason string) {
	if c.err == nil {
		c.err = errors.New(reason)
	}
	c.B = nil
}

// Uvarint reads an unsigned number of binary.AppendUvarint.
func (c *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(c.B)
	if n <= 0 {
		c.Fail("number is cut")
		return 0
	}
	c.B = c.B[n:]
	return v
}

// Varint reads a signed number of binary.AppendVarint.
func (c *Reader) Varint() int64 {
	v, n := binary.Varint(c.B)
	if n <= 0 {
		c.Fail("number is cut")
		return 0
	}
	c.B = c.B[n:]
	return v
}

// U32 reads an Uvarint that must fit 32 bits.
func (c *Reader) U32() uint32 {
	v := c.Uvarint()
	if v > 1<<32-1 {
		c.Fail("number is too large")
		return 0
	}
	return uint32(v)
}

// Count reads how many entries follow, each of at least size bytes, so that a
// damaged count cannot ask for more memory than the table has.
func (c *Reader) Count(size int) int {
	v := c.Uvarint()
	if v > uint64(len(c.B)/size) {
		c.Fail("count is larger than its table")
		return 0
	}
	return int(v)
}

// Fixed64 reads eight bytes, little-endian.
func (c *Reader) Fixed64() uint64 {
	if len(c.B) < 8 {
		c.Fail("number is cut")
		return 0
	}
	v := binary.LittleEndian.Uint64(c.B)
	c.B = c.B[8:]
	return v
}

// Bytes reads n bytes; they belong to B.
func (c *Reader) Bytes(n uint64) []byte {
	if n > uint64(len(c.B)) {
		c.Fail("text is cut")
		return nil
	}
	v := c.B[:n]
	c.B = c.B[n:]
	return v
}

// U8 reads one byte.
func (c *Reader) U8() uint8 {
	b := c.Bytes(1)
	if b == nil {
		return 0
	}
	return b[0]
}

// Done is the first fault; bytes that are left over are one.
func (c *Reader) Done() error {
	if c.err == nil && len(c.B) > 0 {
		c.Fail("bytes are left over")
	}
	return c.err
}
