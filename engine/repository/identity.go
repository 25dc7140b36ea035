// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"
)

// RecipientsOf gives the public keys of the identities in the text of an age identity
// file, so that who can open a repository need not be told for whom it is sealed. Its
// errors hold nothing of the text.
func RecipientsOf(identities string) ([]string, error) {
	ids, err := age.ParseIdentities(strings.NewReader(identities))
	if err != nil {
		return nil, errors.New("it is not the text of an age identity file: a line AGE-SECRET-KEY-1… is expected")
	}
	var out []string
	for _, id := range ids {
		switch x := id.(type) {
		case *age.X25519Identity:
			out = append(out, x.Recipient().String())
		case *age.HybridIdentity:
			out = append(out, x.Recipient().String())
		default:
			return nil, fmt.Errorf("an identity of type %T tells no recipient", x)
		}
	}
	return out, nil
}
