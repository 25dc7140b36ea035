// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// The settings of an installation that describe a repository on a claim.
const (
	SettingClaim         = "dataProtection.backupPVCName"
	SettingClaimCapacity = "dataProtection.backupPVCInitCapacity"
	SettingClaimClass    = "dataProtection.backupPVCStorageClassName"
	SettingClaimPolicy   = "dataProtection.backupPVCCreatePolicy"

	// ClassS3 is the storage class that stands for the bucket of the addon of its name.
	ClassS3 = "csi-s3"
)

// ClaimWished is the BackupRepo that settings describe; nil where they describe none, as
// where no claim is named, or the bucket of csi-s3 stands for it.
func ClaimWished(settings map[string]string) (*v1alpha1.BackupRepo, error) {
	name, class := settings[SettingClaim], settings[SettingClaimClass]
	if name == "" || class == ClassS3 {
		return nil, nil
	}
	c := &v1alpha1.ClaimRepo{ClaimName: name, StorageClassName: class, CreatePolicy: v1alpha1.ClaimCreatePolicy(settings[SettingClaimPolicy])}
	if text := settings[SettingClaimCapacity]; text != "" {
		var err error
		if c.Capacity, err = resource.ParseQuantity(text); err != nil {
			return nil, fmt.Errorf("%s: %q is not a size such as 20Gi", SettingClaimCapacity, text)
		}
	}
	r := &v1alpha1.BackupRepo{ObjectMeta: metav1.ObjectMeta{Name: name}}
	r.Spec.StorageProvider, r.Spec.PersistentVolumeClaim = v1alpha1.ProviderPVC, c
	return r, nil
}
