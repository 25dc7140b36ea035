// SPDX-License-Identifier: Apache-2.0

package runtimes

import "github.com/kbcli/kbcli/api/v1alpha1"

// Endpoint is an address that programs connect to.
type Endpoint struct {
	Mode string // ReadWrite, ReadOnly
	Host string // a name that holds whichever server is the primary
	Port int32
}

// EndpointLister is a Runtime whose clusters have addresses of their own; elsewhere they
// are at ports of this machine.
type EndpointLister interface {
	// Endpoints are those of a cluster, the one that takes writes first. Nothing is asked.
	Endpoints(c *v1alpha1.Cluster) []Endpoint
}
