// SPDX-License-Identifier: Apache-2.0

package pg

const checksumLanes = 32

// checksumBasis starts the 32 hashes that run side by side over a page
// (src/include/storage/checksum_impl.h).
var checksumBasis = [checksumLanes]uint32{
	0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
	0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
	0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
	0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
}

// PageChecksum is the checksum PostgreSQL keeps in a page's header, for the page
// at the given block number of its relation: file number times RelSegBlocks
// plus the place in the file. The value that the header holds does not count,
// and page is not changed. It panics unless page has BlockSize bytes.
func PageChecksum(page []byte, block uint32) uint16 {
	return uint16((checksumBlock((*[BlockSize]byte)(page))^block)%65535 + 1)
}
