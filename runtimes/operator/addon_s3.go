// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"fmt"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/store"
)

// s3On sees to the storage class and to the BackupRepo of the bucket. The command line makes
// the BackupRepo itself, and tries it first; who writes the Addon in YAML gets it from here.
func (l *addonLoop) s3On(ctx context.Context, x *v1alpha1.Addon) (addonState, error) {
	r, err := store.Get[*v1alpha1.BackupRepo](ctx, l.objects, "", addonS3)
	if apierrors.IsNotFound(err) {
		if x.Status.ObservedGeneration == x.Generation && x.Status.Phase == v1alpha1.AddonEnabled {
			return addonState{v1alpha1.AddonEnabled, "the backup repository " + addonS3 + " was removed"}, nil
		}
		r, err = l.makeS3(ctx, x)
	}
	if err != nil {
		return addonState{}, err
	}
	if r.Spec.S3 == nil {
		return addonState{v1alpha1.AddonFailed, "the backup repository " + addonS3 + " is not in a bucket"}, nil
	}
	if err := l.create(ctx, s3Class(r.Spec.S3.Bucket)); err != nil {
		return addonState{}, err
	}
	st := addonState{phase: v1alpha1.AddonEnabled}
	if r.Status.Phase == v1alpha1.RepoFailed {
		st.message = r.Status.Message
	}
	return st, nil
}

// makeS3 makes the BackupRepo that the values of an Addon describe. The keys are in the
// installation's Secret, under the name of the addon; where they are not there, whatever
// reaches the bucket looks around by itself.
func (l *addonLoop) makeS3(ctx context.Context, x *v1alpha1.Addon) (*v1alpha1.BackupRepo, error) {
	values := x.Spec.Install.Values
	r := &v1alpha1.BackupRepo{ObjectMeta: metav1.ObjectMeta{Name: addonS3}}
	r.Spec.StorageProvider = v1alpha1.ProviderS3
	r.Spec.S3 = &v1alpha1.S3Repo{
		Endpoint: values["secret.endpoint"], Region: values["secret.region"], Bucket: values["storageClass.singleBucket"],
	}
	var secret core.Secret
	err := l.live.Get(ctx, client.ObjectKey{Namespace: l.own, Name: specs.InstallationSecret}, &secret)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read the credentials of repositories: %w", err)
	}
	if _, ok := secret.Data[addonS3]; ok {
		r.Spec.S3.CredentialsFile = specs.SecretPath(addonS3)
	}
	r.Spec.S3.PathStyle = !v1alpha1.AmazonEndpoint(r.Spec.S3.Endpoint)
	all, err := store.List[*v1alpha1.BackupRepo](ctx, l.objects, "", nil)
	if err != nil {
		return nil, err
	}
	r.Spec.Default = true
	for _, other := range all {
		r.Spec.Default = r.Spec.Default && !other.Spec.Default
	}
	if err := store.Admit(r, nil); err != nil {
		return nil, err
	}
	return r, l.objects.Create(ctx, r)
}

// s3Off takes the storage class away, if it was made here. The BackupRepo stays: backups are
// in it.
func (l *addonLoop) s3Off(ctx context.Context) error {
	class := &storage.StorageClass{}
	err := l.live.Get(ctx, client.ObjectKey{Name: specs.S3StorageClass}, class)
	if apierrors.IsNotFound(err) || err == nil && class.Labels[names.LabelManagedBy] != names.ManagedBy {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read storage class %s: %w", specs.S3StorageClass, err)
	}
	if err := l.client.Delete(ctx, class); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove storage class %s: %w", class.Name, err)
	}
	return nil
}

// s3Class is the storage class csi-s3. No volume of it is ever made: kbcli reads and writes
// the bucket itself, and the class is there for those who look for it, and for the setting
// dataProtection.backupPVCStorageClassName.
func s3Class(bucket string) *storage.StorageClass {
	keep, now, no := core.PersistentVolumeReclaimRetain, storage.VolumeBindingImmediate, false
	return &storage.StorageClass{
		TypeMeta:    metav1.TypeMeta{APIVersion: "storage.k8s.io/v1", Kind: "StorageClass"},
		ObjectMeta:  metav1.ObjectMeta{Name: specs.S3StorageClass, Labels: map[string]string{names.LabelManagedBy: names.ManagedBy}},
		Provisioner: "ru.yandex.s3.csi", Parameters: map[string]string{"bucket": bucket},
		ReclaimPolicy: &keep, VolumeBindingMode: &now, AllowVolumeExpansion: &no,
	}
}
