// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kbcli/kbcli/internal/atomicfile"
)

// credentials are the files in one directory by which the parts of a cluster know each
// other. They last a week.
type credentials struct{ dir string }

func (c credentials) path(name string) string { return filepath.Join(c.dir, name) }

// The names of users: each has a token, and a kubeconfig called NAME.kubeconfig.
const (
	adminUser             = "admin"
	controllerManagerUser = "controller-manager"
	schedulerUser         = "scheduler"
	proxyUser             = "proxy"
)

// account is a line of the API server's token file.
type account struct{ name, user, groups string }

func nodeAccount(node string) account {
	return account{node, "system:node:" + node, "system:nodes"}
}

var accounts = []account{
	{adminUser, "admin", "system:masters"},
	{controllerManagerUser, "system:kube-controller-manager", ""},
	{schedulerUser, "system:kube-scheduler", ""},
	{proxyUser, "system:kube-proxy", "system:node-proxier"},
}

// write makes the authority, the API server's certificate for the addresses, the key of
// service accounts and a token for each user.
func (c credentials) write(addresses []net.IP, users []account) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kbcli test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(7 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kubernetes"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: addresses,
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serverKey, err := c.newKey("apiserver.key")
	if err != nil {
		return err
	}
	if err := c.sign("ca.crt", ca, ca, &caKey.PublicKey, caKey); err != nil {
		return err
	}
	if err := c.sign("apiserver.crt", server, ca, &serverKey.PublicKey, caKey); err != nil {
		return err
	}
	accountsKey, err := c.newKey("sa.key")
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&accountsKey.PublicKey)
	if err != nil {
		return err
	}
	if err := c.writePEM("sa.pub", "PUBLIC KEY", public); err != nil {
		return err
	}
	var lines strings.Builder
	for _, u := range users {
		token := rand.Text()
		fmt.Fprintf(&lines, "%s,%s,%s,%q\n", token, u.user, u.user, u.groups)
		if err := os.WriteFile(c.path(u.name+".token"), []byte(token), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(c.path("tokens.csv"), []byte(lines.String()), 0o600)
}

func (c credentials) newKey(name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, c.writePEM(name, "EC PRIVATE KEY", der)
}

func (c credentials) sign(name string, cert, ca *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, cert, ca, public, key)
	if err != nil {
		return err
	}
	return c.writePEM(name, "CERTIFICATE", der)
}

func (c credentials) writePEM(name, kind string, der []byte) error {
	return os.WriteFile(c.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// kubeconfig writes how user reaches the API server at url into the file name.
func (c credentials) kubeconfig(name, url, user string) error {
	authority, err := os.ReadFile(c.path("ca.crt"))
	if err != nil {
		return err
	}
	token, err := os.ReadFile(c.path(user + ".token"))
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: %s}}]
clusters: [{name: test, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: %s, user: {token: %s}}]
`, user, url, base64.StdEncoding.EncodeToString(authority), user, token)
	// somebody may be reading the one that is there
	return atomicfile.Write(name, []byte(text), 0o600)
}
