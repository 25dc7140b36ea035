// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
)

const (
	scramIterations = 4096 // PostgreSQL's own
	scramSalt       = 16
)

// scramVerifier is what PostgreSQL stores of a password (RFC 5803, RFC 7677). It
// takes one in place of the password, which so never comes near its log.
//
// A password outside printable ASCII would have to be normalised as RFC 4013
// says, by us exactly as by whoever logs in; it is refused.
func scramVerifier(password string) (string, error) {
	for _, r := range password {
		if r < ' ' || r > '~' {
			return "", usage("the password has characters that are not printable ASCII")
		}
	}
	salt := make([]byte, scramSalt)
	_, _ = rand.Read(salt) // never fails
	return scramOf(password, salt)
}

func scramOf(password string, salt []byte) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, scramIterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("derive a key: %w", err)
	}
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac(salted, "Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", scramIterations, b64(salt), b64(stored[:]), b64(mac(salted, "Server Key"))), nil
}

const lettersAndDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// randomPassword is ten letters and digits, each as likely as any other.
func randomPassword() string {
	var b strings.Builder
	for one := make([]byte, 1); b.Len() < 10; {
		_, _ = rand.Read(one) // never fails
		// 248 is the largest multiple of 62 in a byte.
		if one[0] < 248 {
			b.WriteByte(lettersAndDigits[one[0]%62])
		}
	}
	return b.String()
}
