// SPDX-License-Identifier: Apache-2.0

package volumes

import (
	"strconv"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

const (
	port            = 8443
	volume          = "repository" // and the container that serves it
	access          = "access"
	accessDirectory = "/run/kubeblocks/access"
	mountedAt       = "/var/lib/kubeblocks/repository"
	// place is a folder of the volume: the root of a file system may have others in it,
	// lost+found, that only root can read.
	place = mountedAt + "/kbcli"
	uid   = int64(65532)

	labelRepository = "dataprotection.kubeblocks.io/backup-repo"
)

// AccessKey is the one key of the Secret.
const AccessKey = "access"

// Endpoint is where the volume of a repository is served.
func Endpoint(repo, namespace string) string {
	return names.Repository(repo) + "." + namespace + ".svc:" + strconv.Itoa(port)
}

func meta(r *v1alpha1.BackupRepo, namespace string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: names.Repository(r.Name), Labels: labels(r.Name),
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: r.GroupVersionKind().GroupVersion().String(), Kind: v1alpha1.KindBackupRepo, Name: r.Name, UID: r.UID,
		}},
	}
}

// labels are those of what belongs to a repository.
func labels(repo string) map[string]string {
	return map[string]string{names.LabelName: names.RepositoryServer, names.LabelManagedBy: names.ManagedBy, labelRepository: repo}
}

// Claim is the claim that a repository asks for. It has no owner.
func Claim(r *v1alpha1.BackupRepo, namespace string) *core.PersistentVolumeClaim {
	c := r.Spec.PersistentVolumeClaim
	out := &core.PersistentVolumeClaim{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: c.ClaimName, Labels: labels(r.Name)},
		Spec: core.PersistentVolumeClaimSpec{
			AccessModes: []core.PersistentVolumeAccessMode{core.PersistentVolumeAccessMode(c.AccessMode)},
			Resources:   core.VolumeResourceRequirements{Requests: core.ResourceList{core.ResourceStorage: c.Capacity}},
		},
	}
	if c.StorageClassName != "" {
		class := c.StorageClassName
		out.Spec.StorageClassName = &class
	}
	return out
}

// MadeHere tells whether the operator made a claim, and may make it larger.
func MadeHere(c *core.PersistentVolumeClaim) bool {
	return c.Labels[names.LabelManagedBy] == names.ManagedBy && c.Labels[labelRepository] != ""
}

// Secret holds what the server listens with.
func Secret(r *v1alpha1.BackupRepo, namespace string, text []byte) *core.Secret {
	return &core.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: meta(r, namespace), Type: core.SecretTypeOpaque,
		Data: map[string][]byte{AccessKey: text},
	}
}

// Service leads to the pod.
func Service(r *v1alpha1.BackupRepo, namespace string) *core.Service {
	return &core.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: meta(r, namespace),
		Spec: core.ServiceSpec{
			Type: core.ServiceTypeClusterIP, Selector: labels(r.Name),
			Ports: []core.ServicePort{{Name: "https", Protocol: core.ProtocolTCP, Port: port, TargetPort: intstr.FromInt32(port)}},
		},
	}
}

// StatefulSet runs the pod: one at most at any time, which is all that a volume which one
// node mounts allows.
func StatefulSet(r *v1alpha1.BackupRepo, namespace string, images specs.Images) *apps.StatefulSet {
	one, yes, no, user, grace, mode := int32(1), true, false, uid, int64(30), int32(0o440)
	mismatch := core.FSGroupChangeOnRootMismatch
	alive := core.Probe{
		ProbeHandler:  core.ProbeHandler{HTTPGet: &core.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(port), Scheme: core.URISchemeHTTPS}},
		PeriodSeconds: 5, TimeoutSeconds: 5, SuccessThreshold: 1, FailureThreshold: 3,
	}
	ready := alive
	ready.PeriodSeconds = 2
	by := labels(r.Name)
	return &apps.StatefulSet{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"}, ObjectMeta: meta(r, namespace),
		Spec: apps.StatefulSetSpec{
			Replicas: &one, ServiceName: names.Repository(r.Name), PodManagementPolicy: apps.ParallelPodManagement,
			Selector: &metav1.LabelSelector{MatchLabels: by},
			Template: core.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: by},
				Spec: core.PodSpec{
					AutomountServiceAccountToken: &no, EnableServiceLinks: &no, TerminationGracePeriodSeconds: &grace,
					SecurityContext: &core.PodSecurityContext{
						RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user, FSGroup: &user, FSGroupChangePolicy: &mismatch,
						SeccompProfile: &core.SeccompProfile{Type: core.SeccompProfileTypeRuntimeDefault},
					},
					Containers: []core.Container{{
						Name: volume, Image: images.Kbcli, ImagePullPolicy: images.PullPolicy,
						Args:           []string{"agent", "serve-repository"},
						Ports:          []core.ContainerPort{{Name: "https", ContainerPort: port, Protocol: core.ProtocolTCP}},
						ReadinessProbe: &ready,
						LivenessProbe:  &alive,
						SecurityContext: &core.SecurityContext{
							AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, RunAsNonRoot: &yes,
							Capabilities: &core.Capabilities{Drop: []core.Capability{"ALL"}},
						},
						// no limit: it holds a megabyte a request
						Resources: core.ResourceRequirements{Requests: core.ResourceList{
							core.ResourceCPU: resource.MustParse("50m"), core.ResourceMemory: resource.MustParse("64Mi"),
						}},
						TerminationMessagePolicy: core.TerminationMessageFallbackToLogsOnError,
						VolumeMounts:             []core.VolumeMount{{Name: volume, MountPath: mountedAt}, {Name: access, MountPath: accessDirectory, ReadOnly: true}},
					}},
					Volumes: []core.Volume{
						{Name: volume, VolumeSource: core.VolumeSource{PersistentVolumeClaim: &core.PersistentVolumeClaimVolumeSource{ClaimName: r.Spec.PersistentVolumeClaim.ClaimName}}},
						{Name: access, VolumeSource: core.VolumeSource{Secret: &core.SecretVolumeSource{SecretName: names.Repository(r.Name), DefaultMode: &mode}}},
					},
				},
			},
		},
	}
}
