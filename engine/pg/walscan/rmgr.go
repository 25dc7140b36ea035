// SPDX-License-Identifier: Apache-2.0

package walscan

import "fmt"

// RmgrID tells which part of PostgreSQL wrote a record and reads it back.
type RmgrID uint8

// The built-in resource managers (src/include/access/rmgrlist.h), the same in
// every release from 13 to 18. From 128 up they belong to extensions.
const (
	RmgrXLOG RmgrID = iota
	RmgrTransaction
	RmgrStorage
	RmgrCLOG
	RmgrDatabase
	RmgrTablespace
	RmgrMultiXact
	RmgrRelMap
	RmgrStandby
	RmgrHeap2
	RmgrHeap
	RmgrBtree
	RmgrHash
	RmgrGin
	RmgrGist
	RmgrSequence
	RmgrSPGist
	RmgrBRIN
	RmgrCommitTs
	RmgrReplicationOrigin
	RmgrGeneric
	RmgrLogicalMessage
	rmgrBuiltin // how many there are
)

const (
	rmgrFirstCustom  = 128
	majorCustomRmgrs = 15 // the first release with them
)

var rmgrNames = [rmgrBuiltin]string{
	"XLOG", "Transaction", "Storage", "CLOG", "Database", "Tablespace", "MultiXact", "RelMap",
	"Standby", "Heap2", "Heap", "Btree", "Hash", "Gin", "Gist", "Sequence", "SPGist", "BRIN",
	"CommitTs", "ReplicationOrigin", "Generic", "LogicalMessage",
}

// String is pg_waldump's name of the resource manager.
func (r RmgrID) String() string {
	if r < rmgrBuiltin {
		return rmgrNames[r]
	}
	return fmt.Sprintf("custom%03d", uint8(r))
}

func (r RmgrID) valid(major int) bool {
	return r < rmgrBuiltin || r >= rmgrFirstCustom && major >= majorCustomRmgrs
}
