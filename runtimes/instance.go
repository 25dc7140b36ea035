// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// Instance is one server of a cluster.
type Instance struct {
	Name       string    `json:"name"` // my-pg-postgresql-0
	Namespace  string    `json:"namespace"`
	Cluster    string    `json:"cluster"`
	Component  string    `json:"component"`
	Status     string    `json:"status"`
	Role       string    `json:"role"`       // primary, standby; empty when nobody could ask
	AccessMode string    `json:"accessMode"` // ReadWrite, Readonly
	Zone       string    `json:"zone,omitempty"`
	CPU        string    `json:"cpu,omitempty"` // request / limit
	Memory     string    `json:"memory,omitempty"`
	Storage    string    `json:"storage,omitempty"`
	Node       string    `json:"node"`
	Created    time.Time `json:"created"`
}

// InstanceLister is a Runtime that knows the servers of its clusters.
type InstanceLister interface {
	Instances(ctx context.Context, c *v1alpha1.Cluster) ([]Instance, error)
}
