// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

// Endpoints are the names of a cluster's Services, as pods of any namespace resolve them
// unless the domain of the Kubernetes is another.
func (r *Runtime) Endpoints(c *v1alpha1.Cluster) []runtimes.Endpoint {
	one := func(mode, service string) runtimes.Endpoint {
		return runtimes.Endpoint{Mode: mode, Host: service + "." + c.Namespace + ".svc.cluster.local", Port: names.Port}
	}
	out := []runtimes.Endpoint{one("ReadWrite", names.Service(c.Name))}
	if c.Spec.Replicas > 1 {
		out = append(out, one("ReadOnly", names.ReplicaService(c.Name)))
	}
	return out
}
