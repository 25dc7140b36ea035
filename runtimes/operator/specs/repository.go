// SPDX-License-Identifier: Apache-2.0

package specs

import (
	"strconv"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

// What serves the volume of a repository: a StatefulSet of one pod in the operator's
// namespace, a Service before it, and a Secret with its key. They belong to the BackupRepo
// and go with it. The claim does not: the backups are in it.
//
// The pod asks nothing of the Kubernetes API, and has no token for it.
const (
	RepositoryPort      = 8443
	repositoryVolume    = "repository"
	repositoryAccess    = "access"
	RepositoryDirectory = "/var/lib/kubeblocks/repository" // where the claim is mounted
	// RepositoryPlace is a folder of it: the root of a file system may have others in it,
	// lost+found, that only root can read.
	RepositoryPlace = RepositoryDirectory + "/kbcli"
	// RepositoryAccessFile is what the server has and clients know. Its key in the Secret
	// has its name.
	RepositoryAccessFile       = "/run/kubeblocks/access/" + RepositoryAccessKey
	RepositoryAccessKey        = "access"
	labelRepository            = "dataprotection.kubeblocks.io/backup-repo"
	repositoryUID        int64 = 65532
)

// RepositoryEndpoint is where the volume of a repository is served.
func RepositoryEndpoint(repo, namespace string) string {
	return names.Repository(repo) + "." + namespace + ".svc:" + strconv.Itoa(RepositoryPort)
}

func repositoryMeta(r *v1alpha1.BackupRepo, namespace string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: names.Repository(r.Name), Labels: RepositoryLabels(r.Name),
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: r.GroupVersionKind().GroupVersion().String(), Kind: v1alpha1.KindBackupRepo, Name: r.Name, UID: r.UID,
		}},
	}
}

// RepositoryLabels are those of what belongs to a repository.
func RepositoryLabels(repo string) map[string]string {
	return map[string]string{names.LabelName: "repository", names.LabelManagedBy: names.ManagedBy, labelRepository: repo}
}

// RepositoryClaim is the claim that a repository asks for. It has no owner.
func RepositoryClaim(r *v1alpha1.BackupRepo, namespace string) *core.PersistentVolumeClaim {
	c := r.Spec.PersistentVolumeClaim
	out := &core.PersistentVolumeClaim{
		TypeMeta:   kind("v1", "PersistentVolumeClaim"),
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: c.ClaimName, Labels: RepositoryLabels(r.Name)},
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

// MadeForRepository tells whether the operator made a claim, and may make it larger.
func MadeForRepository(c *core.PersistentVolumeClaim) bool {
	return c.Labels[names.LabelManagedBy] == names.ManagedBy && c.Labels[labelRepository] != ""
}

// RepositorySecret holds what the server listens with.
func RepositorySecret(r *v1alpha1.BackupRepo, namespace string, access []byte) *core.Secret {
	return &core.Secret{
		TypeMeta: kind("v1", "Secret"), ObjectMeta: repositoryMeta(r, namespace), Type: core.SecretTypeOpaque,
		Data: map[string][]byte{RepositoryAccessKey: access},
	}
}

// RepositoryService leads to the pod.
func RepositoryService(r *v1alpha1.BackupRepo, namespace string) *core.Service {
	return &core.Service{
		TypeMeta: kind("v1", "Service"), ObjectMeta: repositoryMeta(r, namespace),
		Spec: core.ServiceSpec{
			Type: core.ServiceTypeClusterIP, Selector: RepositoryLabels(r.Name),
			Ports: []core.ServicePort{{Name: "https", Protocol: core.ProtocolTCP, Port: RepositoryPort, TargetPort: intstr.FromInt32(RepositoryPort)}},
		},
	}
}

// RepositorySet runs the pod: one at most at any time, which is all that a volume which one
// node mounts allows.
func RepositorySet(r *v1alpha1.BackupRepo, namespace string, images Images) *apps.StatefulSet {
	one, yes, no, uid, grace, mode := int32(1), true, false, repositoryUID, int64(30), int32(0o440)
	mismatch := core.FSGroupChangeOnRootMismatch
	alive := core.Probe{
		ProbeHandler:  core.ProbeHandler{HTTPGet: &core.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(RepositoryPort), Scheme: core.URISchemeHTTPS}},
		PeriodSeconds: 5, TimeoutSeconds: 5, SuccessThreshold: 1, FailureThreshold: 3,
	}
	ready := alive
	ready.PeriodSeconds = 2
	labels := RepositoryLabels(r.Name)
	return &apps.StatefulSet{
		TypeMeta: kind("apps/v1", "StatefulSet"), ObjectMeta: repositoryMeta(r, namespace),
		Spec: apps.StatefulSetSpec{
			Replicas: &one, ServiceName: names.Repository(r.Name), PodManagementPolicy: apps.ParallelPodManagement,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: core.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: core.PodSpec{
					AutomountServiceAccountToken: &no, EnableServiceLinks: &no, TerminationGracePeriodSeconds: &grace,
					SecurityContext: &core.PodSecurityContext{
						RunAsNonRoot: &yes, RunAsUser: &uid, RunAsGroup: &uid, FSGroup: &uid, FSGroupChangePolicy: &mismatch,
						SeccompProfile: &core.SeccompProfile{Type: core.SeccompProfileTypeRuntimeDefault},
					},
					Containers: []core.Container{{
						Name: repositoryVolume, Image: images.Kbcli, ImagePullPolicy: images.PullPolicy,
						Args:            []string{"agent", "serve-repository"},
						Ports:           []core.ContainerPort{{Name: "https", ContainerPort: RepositoryPort, Protocol: core.ProtocolTCP}},
						ReadinessProbe:  &ready,
						LivenessProbe:   &alive,
						SecurityContext: confined(), Resources: small(),
						TerminationMessagePolicy: core.TerminationMessageFallbackToLogsOnError,
						VolumeMounts:             []core.VolumeMount{mount(repositoryVolume, RepositoryDirectory, false), mount(repositoryAccess, "/run/kubeblocks/access", true)},
					}},
					Volumes: []core.Volume{
						{Name: repositoryVolume, VolumeSource: core.VolumeSource{PersistentVolumeClaim: &core.PersistentVolumeClaimVolumeSource{ClaimName: r.Spec.PersistentVolumeClaim.ClaimName}}},
						{Name: repositoryAccess, VolumeSource: core.VolumeSource{Secret: &core.SecretVolumeSource{SecretName: names.Repository(r.Name), DefaultMode: &mode}}},
					},
				},
			},
		},
	}
}
