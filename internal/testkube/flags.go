// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"net"
	"path/filepath"
)

const (
	serviceCIDR = "10.96.0.0/16"
	podCIDR     = "10.244.0.0/16"
)

// serviceIP is where pods find the API server: the first address of serviceCIDR.
var serviceIP = net.IPv4(10, 96, 0, 1)

// etcdArgs: what etcd stores is thrown away, so it need not survive a power cut.
func etcdArgs(dir, url string) []string {
	return []string{
		"--data-dir", filepath.Join(dir, "etcd"),
		"--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", "http://127.0.0.1:0",
		"--unsafe-no-fsync", "--log-level", "warn",
	}
}

func apiServerArgs(keys credentials, etcd, address, port string) []string {
	return []string{
		"--etcd-servers=" + etcd,
		"--bind-address=" + address, "--advertise-address=" + address, "--secure-port=" + port,
		"--tls-cert-file=" + keys.path("apiserver.crt"), "--tls-private-key-file=" + keys.path("apiserver.key"),
		"--token-auth-file=" + keys.path("tokens.csv"),
		"--service-cluster-ip-range=" + serviceCIDR,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + keys.path("sa.pub"), "--service-account-signing-key-file=" + keys.path("sa.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		// nobody resolves the names of nodes
		"--kubelet-preferred-address-types=InternalIP",
		"--profiling=false", "--v=1",
	}
}
