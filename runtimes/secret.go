// SPDX-License-Identifier: Apache-2.0

package runtimes

import "context"

// SecretKeeper is a Runtime that can keep secrets, where only it reads them.
type SecretKeeper interface {
	// KeepSecret stores data under name, in place of what was there, and returns
	// the absolute path of the file, which only its owner can read. After a nil
	// return it survives a power cut. A name is a DNS subdomain.
	KeepSecret(ctx context.Context, name string, data []byte) (path string, err error)
}

// WrongIdentity is what the status of a BackupRepo says of an identity file that opens
// nothing of what is sealed there.
const WrongIdentity = "the identity file does not open it"

// FarKeeper is a SecretKeeper whose agents do not see the files of whoever types: what a
// BackupRepo names has to be kept for them.
type FarKeeper interface {
	SecretKeeper
	Far()
}
