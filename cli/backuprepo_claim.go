// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/kubernetes"
)

// volumeTimeout is how long is waited for a volume unless somebody says: it is made, and
// an image may have to be fetched for the pod that serves it.
const volumeTimeout = 5 * time.Minute

const createRepoHelp = `Make a directory, a bucket or a volume a repository, or open the one that is there.

filesystem: a directory of this machine, which may be mounted from another.

s3: a part of a bucket.

pvc: a volume of Kubernetes, of any storage class. Its claim is in the namespace of the
operator, which makes it unless it is there. One pod there mounts it and serves it to all
clusters, over TLS: so ReadWriteOnce is enough, and it stays when clusters go.`

// claimFlags are those of a repository on a claim that can be changed.
type claimFlags struct{ capacity, policy string }

// apply puts the flags that were given into the spec.
func (o *claimFlags) apply(given func(string) bool, r *v1alpha1.BackupRepo) error {
	c := r.Spec.PersistentVolumeClaim
	for _, name := range []string{"capacity", "create-policy", "storage-class", "access-mode"} {
		if given(name) && c == nil {
			return usage("--%s is only for the provider pvc", name)
		}
	}
	if given("capacity") {
		q, err := resource.ParseQuantity(o.capacity)
		if err != nil {
			return usage("--capacity: %q is not a size such as 20Gi", o.capacity)
		}
		c.Capacity = q
	}
	if given("create-policy") {
		c.CreatePolicy = v1alpha1.ClaimCreatePolicy(o.policy)
	}
	return nil
}

// claimsHere refuses a claim where there are none.
func (a *app) claimsHere(ctx context.Context) error {
	rt, err := a.runtime(ctx)
	if err != nil {
		return err
	}
	if _, ok := rt.(*kubernetes.Runtime); !ok {
		return usage("a claim is of Kubernetes: on one machine a repository is a directory or a bucket").hints("--provider filesystem --path DIRECTORY")
	}
	return nil
}
