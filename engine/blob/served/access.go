// SPDX-License-Identifier: Apache-2.0

package served

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// hostName is the name in the certificate. Where the server is does not matter: its key
// says who it is.
const hostName = "repository.kbcli"

// Access is what a client knows of a server, or, with Key, what the server has.
type Access struct {
	Certificate []byte `json:"certificate"` // PEM
	Key         []byte `json:"key,omitempty"`
	Token       string `json:"token"`
}

// NewAccess makes a key of the server, a certificate that is good for life from now, and a
// token.
func NewAccess(now time.Time, life time.Duration) (Access, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Access{}, fmt.Errorf("make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return Access{}, fmt.Errorf("make a serial number: %w", err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: hostName}, DNSNames: []string{hostName},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		return Access{}, fmt.Errorf("make a certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Access{}, fmt.Errorf("write a key: %w", err)
	}
	return Access{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
		Token:       rand.Text() + rand.Text(),
	}, nil
}

// ParseAccess reads what Bytes wrote.
func ParseAccess(b []byte) (Access, error) {
	var a Access
	if err := json.Unmarshal(b, &a); err != nil {
		return Access{}, errors.New("the access of a served place cannot be read") // its words may be secret
	}
	if len(a.Certificate) == 0 || a.Token == "" {
		return Access{}, errors.New("the access of a served place has no certificate or no token")
	}
	return a, nil
}

// Bytes are a's, for a file that only those read who may.
func (a Access) Bytes() ([]byte, error) { return json.Marshal(a) }

// ForClients is a without the server's key.
func (a Access) ForClients() Access {
	a.Key = nil
	return a
}

// String has no secret in it.
func (a Access) String() string { return "REDACTED" }

// GoString is String.
func (a Access) GoString() string { return "REDACTED" }

func (a Access) certificate() (*x509.Certificate, error) {
	block, _ := pem.Decode(a.Certificate)
	if block == nil {
		return nil, errors.New("the certificate of a served place is no PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate of a served place: %w", err)
	}
	return c, nil
}

// clientTLS believes the server that has this certificate's key. That a certificate ran out
// is no reason to stop archiving: it is known byte for byte.
func (a Access) clientTLS() (*tls.Config, error) {
	known, err := a.certificate()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: hostName,
		InsecureSkipVerify: true, // VerifyConnection asks for more
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || !bytes.Equal(s.PeerCertificates[0].Raw, known.Raw) {
				return errOtherServer
			}
			return nil
		},
	}, nil
}

var errOtherServer = errors.New("the server has another certificate than the one that is known")

// ServerTLS is what a server listens with; access is asked at each connection.
func ServerTLS(access func() (Access, error)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			a, err := access()
			if err != nil {
				return nil, err
			}
			pair, err := tls.X509KeyPair(a.Certificate, a.Key)
			if err != nil {
				return nil, errors.New("the certificate of a served place and its key do not fit")
			}
			return &pair, nil
		},
	}
}

// admits tells whether a header Authorization has the token.
func (a Access) admits(header string) bool {
	want, have := sha256.Sum256([]byte("Bearer "+a.Token)), sha256.Sum256([]byte(header))
	return a.Token != "" && subtle.ConstantTimeCompare(want[:], have[:]) == 1
}
