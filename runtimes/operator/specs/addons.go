// SPDX-License-Identifier: Apache-2.0

package specs

import (
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

// The objects of addons. The ServiceAccount and the ClusterRole of the snapshot controller
// have its name; the chart makes them, so that the operator need not hold what it would grant.
const (
	SnapshotController       = "kubeblocks-snapshot-controller"
	S3StorageClass           = "csi-s3" // of the addon of that name
	operatorRole             = operatorClusterRole
	snapshotGroup            = "snapshot.storage.k8s.io"
	snapshotUID        int64 = 65532
)

// addonRights are what the operator needs for addons in all of Kubernetes.
func addonRights() []Right {
	return []Right{
		{"storage.k8s.io", []string{"storageclasses"}, []string{S3StorageClass}, []string{"delete", "patch", "update"}, "operator: the addon csi-s3 is turned off"},
		{"apiextensions.k8s.io", []string{"customresourcedefinitions"}, nil, []string{"create"}, "operator: VolumeSnapshots where there are none; a new object has no name to hold it to"},
		{"apiextensions.k8s.io", []string{"customresourcedefinitions"}, snapshotDefinitions(), []string{"get"}, "operator: asks whether there are VolumeSnapshots"},
		{snapshotGroup, []string{"volumesnapshotclasses"}, nil, []string{"create", "get", "list"}, "operator: a class for the driver of the default storage class"},
	}
}

func snapshotDefinitions() []string {
	return []string{"volumesnapshotclasses." + snapshotGroup, "volumesnapshotcontents." + snapshotGroup, "volumesnapshots." + snapshotGroup}
}

// operatorOwnRights are what the operator may do in the namespace that it is in, besides.
func operatorOwnRights() []Right {
	return []Right{
		{"apps", []string{"deployments"}, nil, []string{"create"}, "operator: the snapshot controller; a new object has no name to hold it to"},
		{"apps", []string{"deployments"}, []string{SnapshotController}, []string{"delete", "get", "patch", "update"}, "operator: the snapshot controller"},
	}
}

// snapshotControllerRights are those that external-snapshotter asks for, without groups of
// volumes: rbac-snapshot-controller.yaml of its release 8.5.0.
func snapshotControllerRights() []Right {
	return []Right{
		{"", []string{"persistentvolumes"}, nil, []string{"get", "list", "watch"}, "snapshot controller: finds the disk of a volume"},
		{"", []string{"persistentvolumeclaims"}, nil, []string{"get", "list", "update", "watch"}, "snapshot controller: keeps a claim that a snapshot is taken of"},
		{"", []string{"events"}, nil, []string{"create", "list", "patch", "update", "watch"}, "snapshot controller: tells what happened"},
		{snapshotGroup, []string{"volumesnapshotclasses"}, nil, []string{"get", "list", "watch"}, "snapshot controller: how a snapshot is taken"},
		{snapshotGroup, []string{"volumesnapshotcontents"}, nil, []string{"create", "delete", "get", "list", "patch", "update", "watch"}, "snapshot controller: what a snapshot is bound to"},
		{snapshotGroup, []string{"volumesnapshotcontents/status"}, nil, []string{"patch"}, "snapshot controller: how it stands"},
		{snapshotGroup, []string{"volumesnapshots"}, nil, []string{"create", "delete", "get", "list", "patch", "update", "watch"}, "snapshot controller: binds them"},
		{snapshotGroup, []string{"volumesnapshots/status"}, nil, []string{"patch", "update"}, "snapshot controller: how it stands"},
	}
}

func snapshotControllerOwnRights() []Right {
	return []Right{
		{"coordination.k8s.io", []string{"leases"}, nil, []string{"create", "delete", "get", "list", "update", "watch"}, "snapshot controller: of several one acts"},
	}
}

// Roles are those of the installation in the namespace that it is in.
func Roles(namespace string) []*rbac.Role {
	one := func(name string, rights []Right) *rbac.Role {
		return &rbac.Role{
			TypeMeta:   kind("rbac.authorization.k8s.io/v1", "Role"),
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: madeByUs()},
			Rules:      rules(rights),
		}
	}
	return []*rbac.Role{one(operatorRole, operatorOwnRights()), one(SnapshotController, snapshotControllerOwnRights())}
}

// snapshotControllerRole is what the snapshot controller may do in all of Kubernetes.
func snapshotControllerRole() *rbac.ClusterRole {
	return &rbac.ClusterRole{
		TypeMeta:   kind("rbac.authorization.k8s.io/v1", "ClusterRole"),
		ObjectMeta: metav1.ObjectMeta{Name: SnapshotController, Labels: madeByUs()},
		Rules:      rules(snapshotControllerRights()),
	}
}

func madeByUs() map[string]string { return map[string]string{names.LabelManagedBy: names.ManagedBy} }

// SnapshotControllerDeployment runs the controller of VolumeSnapshots: one acts, one waits.
func SnapshotControllerDeployment(namespace string, images Images) *apps.Deployment {
	labels := map[string]string{names.LabelName: "snapshot-controller", names.LabelManagedBy: names.ManagedBy}
	two, yes, uid := int32(2), true, snapshotUID
	return &apps.Deployment{
		TypeMeta:   kind("apps/v1", "Deployment"),
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: SnapshotController, Labels: labels},
		Spec: apps.DeploymentSpec{
			Replicas: &two,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: core.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: core.PodSpec{
					ServiceAccountName: SnapshotController,
					SecurityContext: &core.PodSecurityContext{
						RunAsNonRoot: &yes, RunAsUser: &uid, SeccompProfile: &core.SeccompProfile{Type: core.SeccompProfileTypeRuntimeDefault},
					},
					Containers: []core.Container{{
						Name: "snapshot-controller", Image: images.SnapshotController, ImagePullPolicy: images.PullPolicy,
						Args:            []string{"--leader-election=true", "--leader-election-namespace=" + namespace},
						SecurityContext: confined(), Resources: small(),
					}},
				},
			},
		},
	}
}
