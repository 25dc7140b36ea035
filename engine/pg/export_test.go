// SPDX-License-Identifier: Apache-2.0

package pg

// ChecksumBasis lets the tests follow the definition of PageChecksum with the
// constants it has.
var ChecksumBasis = checksumBasis
