// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob/served"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/operator/volumes"
	"github.com/kbcli/kbcli/runtimes/repos"
	"github.com/kbcli/kbcli/runtimes/store"
)

// claimInterval is how often a volume that is served is looked at.
const claimInterval = 10 * time.Second

// claimLoop sees to it that the volumes of repositories are there and are served. One
// goroutine uses it.
type claimLoop struct {
	client  client.Client
	live    client.Reader
	objects store.Store
	images  specs.Images
	own     string
	clock   func() time.Time
	log     *slog.Logger

	looked map[types.UID]lookedAt
	wished time.Time // when the settings were read
}

type lookedAt struct {
	generation int64
	at         time.Time
}

// NeedLeaderElection says that one operator of several does this.
func (l *claimLoop) NeedLeaderElection() bool { return true }

// Start looks after volumes until ctx ends.
func (l *claimLoop) Start(ctx context.Context) error {
	changed, err := l.objects.Watch(ctx, v1alpha1.KindBackupRepo, "")
	if err != nil {
		return err
	}
	tick := time.NewTicker(repoInterval)
	defer tick.Stop()
	was := ""
	for {
		err := errors.Join(l.wishedFor(ctx), l.bring(ctx))
		switch {
		case err == nil:
			was = ""
		case err.Error() != was && ctx.Err() == nil: // what stands for long is said once
			was = err.Error()
			l.log.Warn("volumes of repositories", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-changed:
		}
	}
}

// bring looks at every repository on a claim.
func (l *claimLoop) bring(ctx context.Context) error {
	all, err := store.List[*v1alpha1.BackupRepo](ctx, l.objects, "", nil)
	errs := []error{err}
	looked := map[types.UID]lookedAt{}
	for _, o := range all {
		if o.Spec.PersistentVolumeClaim == nil || o.DeletionTimestamp != nil {
			continue
		}
		now, was := l.clock(), l.looked[o.UID]
		if o.Status.Volume.Message == "" && was.generation == o.Generation && now.Sub(was.at).Abs() < claimInterval {
			looked[o.UID] = was
			continue
		}
		v, err := l.bringOne(ctx, o)
		if refusal := (*claimRefusal)(nil); errors.As(err, &refusal) {
			v.Refused, v.Message, err = true, refusal.why, nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("volume of repository %s: %w", o.Name, err))
			v.Message = err.Error()
		}
		if err := l.say(ctx, o, v); err != nil {
			errs = append(errs, err)
			continue
		}
		looked[o.UID] = lookedAt{o.Generation, now}
	}
	l.looked = looked
	return errors.Join(errs...)
}

func (l *claimLoop) say(ctx context.Context, o *v1alpha1.BackupRepo, v v1alpha1.VolumeStatus) error {
	if o.Status.Volume == v {
		return nil
	}
	_, err := store.MutateStatus(ctx, l.objects, "", o.Name, func(now *v1alpha1.BackupRepo) error {
		if now.UID == o.UID {
			now.Status.Volume = v
		}
		return nil
	})
	return client.IgnoreNotFound(err)
}

// claimRefusal says why a volume will not be served until somebody changes something.
type claimRefusal struct{ why string }

func (e *claimRefusal) Error() string { return e.why }

// bringOne makes what is missing of one, and says how it stands.
func (l *claimLoop) bringOne(ctx context.Context, o *v1alpha1.BackupRepo) (v1alpha1.VolumeStatus, error) {
	v := o.Status.Volume
	v.Namespace, v.Message, v.Refused, v.NotGrown = l.own, "", false, ""
	claim, err := l.claim(ctx, o)
	if err != nil {
		return v, err
	}
	if v.NotGrown, err = l.grow(ctx, o, claim); err != nil {
		return v, err
	}
	access, err := l.access(ctx, o)
	if err != nil {
		return v, err
	}
	for _, part := range []client.Object{volumes.Service(o, l.own), volumes.StatefulSet(o, l.own, l.images)} {
		if err := applyAlone(ctx, l.client, part); err != nil {
			return v, err
		}
	}
	if v.Message, err = l.waits(ctx, o, claim); err != nil || v.Message != "" {
		return v, err
	}
	v.Endpoint = volumes.Endpoint(o.Name, l.own)
	place, err := served.Open(served.Config{Name: o.Name, Endpoint: v.Endpoint, Access: func() (served.Access, error) { return access, nil }})
	if err != nil {
		return v, err
	}
	defer place.Close()
	ctx, cancel := context.WithTimeout(ctx, claimInterval)
	defer cancel()
	if x, err := place.Space(ctx); err == nil && x.Capacity > 0 {
		v.Capacity, v.Used = x.Capacity, int32((x.Capacity-x.Free)*100/x.Capacity)
	} // else whoever opens the repository says that it does not answer
	return v, nil
}

// claim is that of a repository, made if there may be a new one.
func (l *claimLoop) claim(ctx context.Context, o *v1alpha1.BackupRepo) (*core.PersistentVolumeClaim, error) {
	spec := o.Spec.PersistentVolumeClaim
	claim := &core.PersistentVolumeClaim{}
	err := l.live.Get(ctx, client.ObjectKey{Namespace: l.own, Name: spec.ClaimName}, claim)
	switch {
	case err == nil && claim.DeletionTimestamp != nil:
		return nil, &claimRefusal{fmt.Sprintf("claim %s/%s is being deleted", l.own, claim.Name)}
	case err == nil && claim.Status.Phase == core.ClaimLost:
		return nil, &claimRefusal{fmt.Sprintf("claim %s/%s has lost its volume", l.own, claim.Name)}
	case err == nil:
		return claim, nil
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("read claim %s: %w", spec.ClaimName, err)
	case repos.Held(o):
		return nil, &claimRefusal{fmt.Sprintf("claim %s/%s, which held the repository, is gone: nothing is made in its place. Bring it back, or delete this BackupRepo", l.own, spec.ClaimName)}
	case spec.CreatePolicy == v1alpha1.ClaimNever:
		return nil, &claimRefusal{fmt.Sprintf("there is no claim %s in namespace %s, and createPolicy is Never: make it there, where the operator is, or say IfNotPresent", spec.ClaimName, l.own)}
	}
	if err := l.classFits(ctx, spec.StorageClassName); err != nil {
		return nil, err
	}
	claim = volumes.Claim(o, l.own)
	if err := l.client.Create(ctx, claim); apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
		return nil, &claimRefusal{fmt.Sprintf("claim %s: %v", claim.Name, err)}
	} else if err != nil {
		return nil, fmt.Errorf("make claim %s: %w", claim.Name, err)
	}
	l.log.Info("a claim was made", "repository", o.Name, "claim", l.own+"/"+claim.Name)
	return claim, nil
}

// classFits refuses a class of which no volume can be made.
func (l *claimLoop) classFits(ctx context.Context, name string) error {
	if name == "" {
		var all storage.StorageClassList
		if err := l.live.List(ctx, &all); err != nil {
			return fmt.Errorf("list storage classes: %w", err)
		}
		for _, c := range all.Items {
			if c.Annotations[annotationDefaultClass] == "true" {
				return nil
			}
		}
		return &claimRefusal{"there is no default storage class: name one"}
	}
	class := &storage.StorageClass{}
	err := l.live.Get(ctx, client.ObjectKey{Name: name}, class)
	switch {
	case apierrors.IsNotFound(err):
		return &claimRefusal{"there is no storage class " + name}
	case err != nil:
		return fmt.Errorf("read storage class %s: %w", name, err)
	case name == specs.S3StorageClass && class.Labels[names.LabelManagedBy] == names.ManagedBy:
		return &claimRefusal{"no volume of storage class " + name + " is ever made: kbcli reads and writes that bucket itself, as the repository " + addonS3}
	}
	return nil
}

// grow asks for a larger volume where the repository does; the words are why it stays as it
// is.
func (l *claimLoop) grow(ctx context.Context, o *v1alpha1.BackupRepo, c *core.PersistentVolumeClaim) (string, error) {
	have, want := c.Spec.Resources.Requests[core.ResourceStorage], o.Spec.PersistentVolumeClaim.Capacity
	if o.Spec.PersistentVolumeClaim.CreatePolicy == v1alpha1.ClaimNever || want.Cmp(have) <= 0 {
		return "", nil
	}
	stays := fmt.Sprintf("claim %s/%s stays at %s: ", c.Namespace, c.Name, have.String())
	if !volumes.MadeHere(c) {
		return stays + "it was not made by the operator; who made it makes it larger", nil
	}
	if why, err := cannotGrow(ctx, l.live, c); err != nil || why != "" {
		return stays + why, err
	}
	before := c.DeepCopy()
	c.Spec.Resources.Requests[core.ResourceStorage] = want
	err := l.client.Patch(ctx, c, client.MergeFrom(before))
	if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
		return stays + err.Error(), nil
	}
	if err != nil {
		return "", fmt.Errorf("grow claim %s: %w", c.Name, err)
	}
	l.log.Info("a claim grows", "claim", c.Name, "from", have.String(), "to", want.String())
	return "", nil
}

// accessLife is how long a certificate says that it is good for. Whoever knows it knows it
// byte for byte, and does not look at the date.
const accessLife = 20 * 365 * 24 * time.Hour

// access is what the volume is reached with: made once, and handed to those who may.
func (l *claimLoop) access(ctx context.Context, o *v1alpha1.BackupRepo) (served.Access, error) {
	at := client.ObjectKey{Namespace: l.own, Name: names.Repository(o.Name)}
	var secret core.Secret
	err := l.live.Get(ctx, at, &secret)
	if apierrors.IsNotFound(err) {
		var fresh served.Access
		if fresh, err = served.NewAccess(l.clock(), accessLife); err != nil {
			return fresh, err
		}
		text, merr := fresh.Bytes()
		if merr != nil {
			return fresh, merr
		}
		secret = *volumes.Secret(o, l.own, text)
		err = l.client.Create(ctx, &secret)
	}
	if err != nil {
		return served.Access{}, fmt.Errorf("secret %s: %w", at.Name, err)
	}
	if len(secret.OwnerReferences) != 1 || secret.OwnerReferences[0].UID != o.UID {
		return served.Access{}, fmt.Errorf("secret %s is not of this repository: it may be that of one that was deleted, and go by itself", at.Name)
	}
	a, err := served.ParseAccess(secret.Data[volumes.AccessKey])
	if err != nil {
		return a, fmt.Errorf("secret %s: %w", at.Name, err)
	}
	return a.ForClients(), l.handOut(ctx, o, a.ForClients())
}

// handOut puts what clients need among the keys of the installation, from where the
// clusters that use the repository get it.
func (l *claimLoop) handOut(ctx context.Context, o *v1alpha1.BackupRepo, a served.Access) error {
	text, err := a.Bytes()
	if err != nil {
		return err
	}
	key := names.RepositoryAccess(o.Name)
	var all core.Secret
	err = l.live.Get(ctx, client.ObjectKey{Namespace: l.own, Name: specs.InstallationSecret}, &all)
	switch {
	case apierrors.IsNotFound(err):
		all = core.Secret{ObjectMeta: metav1.ObjectMeta{
			Namespace: l.own, Name: specs.InstallationSecret, Labels: map[string]string{names.LabelManagedBy: names.ManagedBy},
		}, Data: map[string][]byte{key: text}}
		err = l.client.Create(ctx, &all)
	case err == nil && !bytes.Equal(all.Data[key], text):
		before := all.DeepCopy()
		if all.Data == nil {
			all.Data = map[string][]byte{}
		}
		all.Data[key] = text
		err = l.client.Patch(ctx, &all, client.MergeFrom(before))
	}
	if err != nil {
		return fmt.Errorf("keep the access of repository %s: %w", o.Name, err)
	}
	return nil
}

// waits says why the volume is not served; empty if it is.
func (l *claimLoop) waits(ctx context.Context, o *v1alpha1.BackupRepo, claim *core.PersistentVolumeClaim) (string, error) {
	name := names.Repository(o.Name) + "-0"
	var p core.Pod
	err := l.live.Get(ctx, client.ObjectKey{Namespace: l.own, Name: name}, &p)
	switch {
	case apierrors.IsNotFound(err):
		return "pod " + name + " is being made", nil
	case err != nil:
		return "", fmt.Errorf("read pod %s: %w", name, err)
	case ready(&p):
		return "", nil
	}
	_, words := whyNot(&p)
	if claim.Status.Phase == core.ClaimPending {
		words = fmt.Sprintf("claim %s/%s is not bound to a volume yet; kubectl -n %[1]s describe pvc %[2]s says why", l.own, claim.Name)
	}
	return "pod " + name + ": " + cmp.Or(words, "it starts"), nil
}
