// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"path"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/store/kube"
)

// KeepSecret puts data into the Secret that the operator reads the credentials of
// repositories from. The path is where the operator, and the agents of the clusters whose
// backups go there, find it as a file.
func (r *Runtime) KeepSecret(ctx context.Context, name string, data []byte) (string, error) {
	at, err := r.repositoriesSecret(ctx)
	if err != nil {
		return "", err
	}
	s := corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: at, Name: names.RepositoriesSecret, Labels: map[string]string{names.LabelManagedBy: names.ManagedBy},
		},
		Data: map[string][]byte{name: data},
	}
	body, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	// A merge touches no other key; two that make the Secret at once both get theirs in.
	for range 3 {
		err = r.api.client.Patch(types.MergePatchType).AbsPath(of(at, "secrets", s.Name)).Body(body).Do(ctx).Error()
		if !apierrors.IsNotFound(err) {
			break
		}
		err = r.api.client.Post().AbsPath(of(at, "secrets", "")).Body(body).Do(ctx).Error()
		if !apierrors.IsAlreadyExists(err) {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("keep %s in secret %s/%s: %w", name, at, s.Name, kube.Unreachable(err))
	}
	return path.Join(names.RepositoriesDirectory, name), nil
}

// Far says that a file of this machine is none of those who act.
func (r *Runtime) Far() {}

// repositoriesSecret is the namespace of that Secret.
func (r *Runtime) repositoriesSecret(ctx context.Context) (string, error) {
	found, err := r.operators(ctx)
	if apierrors.IsForbidden(err) {
		return names.SystemNamespace, nil
	}
	if err != nil {
		return "", fmt.Errorf("look for the operator: %w", err)
	}
	if len(found) == 0 {
		return "", &OperatorError{}
	}
	return found[0].Namespace, nil
}
