// SPDX-License-Identifier: Apache-2.0

package specs

import (
	"strconv"
	"strings"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

// Images are what pods run. PostgreSQL's may hold "{major}".
type Images struct {
	PostgreSQL string
	Kbcli      string
	PullPolicy core.PullPolicy // empty: as Kubernetes does

	SnapshotController string // of the addon; empty where there is none to run
}

func (i Images) postgresql(major int) string {
	return strings.ReplaceAll(i.PostgreSQL, "{major}", strconv.Itoa(major))
}

// StatefulSet runs replicas pods: fewer than the Cluster asks for while the first is
// restored, none when it is stopped. Its pods are made anew by the operator, in an order
// that the StatefulSet does not know.
func StatefulSet(c *v1alpha1.Cluster, images Images, replicas int32) *apps.StatefulSet {
	pod := podTemplate(c, images)
	history := int32(3)
	return &apps.StatefulSet{
		TypeMeta: kind("apps/v1", "StatefulSet"), ObjectMeta: meta(c, StatefulSetName(c.Name)),
		Spec: apps.StatefulSetSpec{
			Replicas: &replicas, RevisionHistoryLimit: &history,
			ServiceName:         podsService(c.Name),
			PodManagementPolicy: apps.ParallelPodManagement,
			UpdateStrategy:      apps.StatefulSetUpdateStrategy{Type: apps.OnDeleteStatefulSetStrategyType},
			Selector:            &metav1.LabelSelector{MatchLabels: Selector(c.Name)},
			Template:            pod,
			// who takes the volumes away is the operator, by the termination policy
			PersistentVolumeClaimRetentionPolicy: &apps.StatefulSetPersistentVolumeClaimRetentionPolicy{
				WhenDeleted: apps.RetainPersistentVolumeClaimRetentionPolicyType, WhenScaled: apps.RetainPersistentVolumeClaimRetentionPolicyType,
			},
			VolumeClaimTemplates: []core.PersistentVolumeClaim{claim(c)},
		},
	}
}

// claim is the volume of each pod. Its size here is that of the first day: a StatefulSet
// does not let it change, so the operator grows the claims themselves.
func claim(c *v1alpha1.Cluster) core.PersistentVolumeClaim {
	pvc := core.PersistentVolumeClaim{
		TypeMeta:   kind("v1", "PersistentVolumeClaim"),
		ObjectMeta: metav1.ObjectMeta{Name: dataVolume, Labels: Labels(c.Name)},
		Spec: core.PersistentVolumeClaimSpec{
			AccessModes: []core.PersistentVolumeAccessMode{core.ReadWriteOnce},
			Resources:   core.VolumeResourceRequirements{Requests: core.ResourceList{core.ResourceStorage: c.Spec.Storage}},
		},
	}
	if c.Spec.StorageClassName != "" {
		class := c.Spec.StorageClassName
		pvc.Spec.StorageClassName = &class
	}
	return pvc
}

// AnnotationBackup is on the claim of a restored cluster's first pod: the backup whose
// VolumeSnapshot it is made of.
const AnnotationBackup = "dataprotection.kubeblocks.io/backup"

// AnnotationVolumeUsed is on a Cluster whose restore was interrupted on a volume that was
// made of a snapshot: the operator makes that anew, and takes the annotation away.
const AnnotationVolumeUsed = "apps.kubeblocks.io/restored-volume-used"

// RestoredClaim is the volume of the first pod, made of a VolumeSnapshot of its namespace.
// It is made before the StatefulSet, which finds it then.
func RestoredClaim(c *v1alpha1.Cluster, backup, snapshot, class string, size resource.Quantity) *core.PersistentVolumeClaim {
	pvc := claim(c)
	pvc.Namespace, pvc.Name = c.Namespace, ClaimName(c.Name, 0)
	pvc.Annotations = map[string]string{AnnotationBackup: backup}
	if size.Cmp(c.Spec.Storage) > 0 {
		pvc.Spec.Resources.Requests[core.ResourceStorage] = size
	}
	if pvc.Spec.StorageClassName == nil && class != "" {
		pvc.Spec.StorageClassName = &class
	}
	group := "snapshot.storage.k8s.io"
	pvc.Spec.DataSource = &core.TypedLocalObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Name: snapshot}
	return &pvc
}

func podTemplate(c *v1alpha1.Cluster, images Images) core.PodTemplateSpec {
	uid, yes, grace := int64(postgresUID), true, int64(120)
	mismatch := core.FSGroupChangeOnRootMismatch
	notes := map[string]string{annotationHash: localHash(c)}
	if at := c.Annotations[v1alpha1.AnnotationRestart]; at != "" {
		notes[v1alpha1.AnnotationRestart] = at
	}
	return core.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: Labels(c.Name), Annotations: notes},
		Spec: core.PodSpec{
			ServiceAccountName: StatefulSetName(c.Name),
			// a primary that is asked to end hands over, and writes a checkpoint
			TerminationGracePeriodSeconds: &grace,
			SecurityContext: &core.PodSecurityContext{
				RunAsNonRoot: &yes, RunAsUser: &uid, RunAsGroup: &uid, FSGroup: &uid, FSGroupChangePolicy: &mismatch,
				SeccompProfile: &core.SeccompProfile{Type: core.SeccompProfileTypeRuntimeDefault},
			},
			Affinity:       apart(c),
			InitContainers: []core.Container{copyContainer(images), volumeContainer(c, images)},
			Containers:     []core.Container{serverContainer(c, images), agentContainer(c, images)},
			Volumes:        volumes(c),
		},
	}
}

// apart puts the servers of a cluster on different nodes where there are enough.
func apart(c *v1alpha1.Cluster) *core.Affinity {
	return &core.Affinity{PodAntiAffinity: &core.PodAntiAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []core.WeightedPodAffinityTerm{{
			Weight: 100,
			PodAffinityTerm: core.PodAffinityTerm{
				LabelSelector: &metav1.LabelSelector{MatchLabels: Selector(c.Name)}, TopologyKey: core.LabelHostname,
			},
		}},
	}}
}

const (
	volumeProgram   = "program"
	volumeRun       = "run"
	volumePatroni   = "patroni"
	volumePasswords = "passwords"
	volumeSecrets   = "repositories"
	volumeTemporary = "tmp"
	volumeShared    = "shared-memory"
)

func volumes(c *v1alpha1.Cluster) []core.Volume {
	empty := func(name string, medium core.StorageMedium) core.Volume {
		return core.Volume{Name: name, VolumeSource: core.VolumeSource{EmptyDir: &core.EmptyDirVolumeSource{Medium: medium}}}
	}
	secretMode, optional := int32(0o440), true // the owner is root, the group that of the pod
	return []core.Volume{
		empty(volumeProgram, ""), empty(volumeRun, ""), empty(volumePasswords, core.StorageMediumMemory), empty(volumeTemporary, ""),
		// the 64 MB of a container are too few for parallel queries
		empty(volumeShared, core.StorageMediumMemory),
		{Name: volumePatroni, VolumeSource: core.VolumeSource{ConfigMap: &core.ConfigMapVolumeSource{
			LocalObjectReference: core.LocalObjectReference{Name: StatefulSetName(c.Name)},
		}}},
		{Name: volumeSecrets, VolumeSource: core.VolumeSource{Secret: &core.SecretVolumeSource{
			SecretName: RepositoriesSecret(c.Name), DefaultMode: &secretMode, Optional: &optional,
		}}},
	}
}

// confined is what "restricted" asks of a container.
func confined() *core.SecurityContext {
	no, yes := false, true
	return &core.SecurityContext{
		AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, RunAsNonRoot: &yes,
		Capabilities: &core.Capabilities{Drop: []core.Capability{"ALL"}},
	}
}

func mount(name, path string, readOnly bool) core.VolumeMount {
	return core.VolumeMount{Name: name, MountPath: path, ReadOnly: readOnly}
}

// where says to kbcli which cluster and pod it is in. It knows the paths itself.
func where(c *v1alpha1.Cluster) []core.EnvVar {
	field := func(name, path string) core.EnvVar {
		return core.EnvVar{Name: name, ValueFrom: &core.EnvVarSource{FieldRef: &core.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
	}
	return []core.EnvVar{
		field(EnvNamespace, "metadata.namespace"), field(EnvPod, "metadata.name"), field(envPodUID, "metadata.uid"),
		{Name: EnvCluster, Value: c.Name},
		memory(),
	}
}

// memory says to kbcli how much its container may have; that of the node where there is no
// limit. A namespace may set one that is not written here.
func memory() core.EnvVar {
	return core.EnvVar{Name: names.EnvMemory, ValueFrom: &core.EnvVarSource{ResourceFieldRef: &core.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1")}}}
}

// What kbcli reads from the environment in a pod.
const (
	EnvNamespace           = "KBCLI_NAMESPACE"
	EnvPod                 = "KBCLI_POD"
	envPodUID              = "KBCLI_POD_UID"
	EnvCluster             = "KBCLI_CLUSTER"
	EnvSuperuserPassword   = "PATRONI_SUPERUSER_PASSWORD"
	EnvReplicationPassword = "PATRONI_REPLICATION_PASSWORD"
)

func copyContainer(images Images) core.Container {
	return core.Container{
		Name: containerCopy, Image: images.Kbcli, ImagePullPolicy: images.PullPolicy,
		Args:            []string{"agent", "copy-program", ProgramPath},
		SecurityContext: confined(), Resources: small(),
		VolumeMounts: []core.VolumeMount{mount(volumeProgram, programDirectory, false)},
	}
}

// volumeContainer makes the data directory's parents, gives it the mode that PostgreSQL
// asks for, and restores it where the cluster is another's past.
func volumeContainer(c *v1alpha1.Cluster, images Images) core.Container {
	return core.Container{
		Name: containerVolume, Image: images.postgresql(Major(c)), ImagePullPolicy: images.PullPolicy,
		Command:         []string{ProgramPath, "agent", "restore-volume"},
		Env:             append(where(c), passwords(c)...),
		SecurityContext: confined(), Resources: resources(c),
		TerminationMessagePolicy: core.TerminationMessageFallbackToLogsOnError,
		VolumeMounts: []core.VolumeMount{
			mount(dataVolume, VolumeDirectory, false), mount(volumeProgram, programDirectory, true), mount(volumeSecrets, SecretsDirectory, true),
			mount(volumeTemporary, "/tmp", false), mount(volumeRun, SocketDirectory, false), mount(volumeShared, "/dev/shm", false),
		},
	}
}

// passwords come from the Secrets into the environment: never as arguments.
func passwords(c *v1alpha1.Cluster) []core.EnvVar {
	return []core.EnvVar{
		fromSecret("PATRONI_SUPERUSER_USERNAME", SuperuserSecret(c.Name), secretUsername),
		fromSecret(EnvSuperuserPassword, SuperuserSecret(c.Name), secretPassword),
		fromSecret("PATRONI_REPLICATION_USERNAME", ReplicationSecret(c.Name), secretUsername),
		fromSecret(EnvReplicationPassword, ReplicationSecret(c.Name), secretPassword),
	}
}

func fromSecret(name, secret, key string) core.EnvVar {
	return core.EnvVar{Name: name, ValueFrom: &core.EnvVarSource{SecretKeyRef: &core.SecretKeySelector{
		LocalObjectReference: core.LocalObjectReference{Name: secret}, Key: key,
	}}}
}

func serverContainer(c *v1alpha1.Cluster, images Images) core.Container {
	field := func(name, path string) core.EnvVar {
		return core.EnvVar{Name: name, ValueFrom: &core.EnvVarSource{FieldRef: &core.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
	}
	env := append([]core.EnvVar{
		field("POD_IP", "status.podIP"), field("PATRONI_NAME", "metadata.name"),
		field("PATRONI_KUBERNETES_NAMESPACE", "metadata.namespace"), field("PATRONI_KUBERNETES_POD_IP", "status.podIP"),
		{Name: "PATRONI_POSTGRESQL_CONNECT_ADDRESS", Value: "$(POD_IP):" + strconv.Itoa(Port)},
		{Name: "PATRONI_RESTAPI_CONNECT_ADDRESS", Value: "$(POD_IP):" + strconv.Itoa(patroniPort)},
		{Name: "LC_ALL", Value: "C.UTF-8"},
		{Name: "HOME", Value: "/tmp"},
		// what people run in the container finds the server
		{Name: "PGHOST", Value: SocketDirectory},
		{Name: "PGDATA", Value: DataDirectory},
		// its REST API can change settings, archive_command among them: not for whoever reaches the pod
		fromSecret("PATRONI_RESTAPI_USERNAME", patroniSecret(c.Name), secretUsername),
		fromSecret("PATRONI_RESTAPI_PASSWORD", patroniSecret(c.Name), secretPassword),
	}, passwords(c)...)
	ask := func(path string) *core.Probe {
		return &core.Probe{
			ProbeHandler:  core.ProbeHandler{HTTPGet: &core.HTTPGetAction{Path: path, Port: intstr.FromString("patroni"), Scheme: core.URISchemeHTTP}},
			PeriodSeconds: 10, TimeoutSeconds: 5, SuccessThreshold: 1, FailureThreshold: 3,
		}
	}
	ready, alive := ask("/readiness"), ask("/liveness")
	ready.PeriodSeconds = 3
	// Patroni answers within seconds, whatever PostgreSQL does; liveness is its loop's
	alive.InitialDelaySeconds, alive.FailureThreshold = 30, 6
	return core.Container{
		Name: names.ContainerPostgreSQL, Image: images.postgresql(Major(c)), ImagePullPolicy: images.PullPolicy,
		Command: []string{"patroni", patroniDirectory + "/" + patroniConfigKey},
		Env:     env,
		Ports: []core.ContainerPort{
			{Name: component, ContainerPort: Port, Protocol: core.ProtocolTCP}, {Name: "patroni", ContainerPort: patroniPort, Protocol: core.ProtocolTCP},
		},
		ReadinessProbe: ready, LivenessProbe: alive,
		Resources: resources(c), SecurityContext: confined(),
		VolumeMounts: []core.VolumeMount{
			mount(dataVolume, VolumeDirectory, false), mount(volumeRun, SocketDirectory, false), mount(volumePatroni, patroniDirectory, true),
			mount(volumeProgram, programDirectory, true),
			mount(volumePasswords, passwordsDirectory, false), mount(volumeTemporary, "/tmp", false), mount(volumeShared, "/dev/shm", false),
		},
	}
}

func agentContainer(c *v1alpha1.Cluster, images Images) core.Container {
	return core.Container{
		Name: names.ContainerAgent, Image: images.Kbcli, ImagePullPolicy: images.PullPolicy,
		Args:            []string{"agent", "pod"},
		Env:             where(c),
		SecurityContext: confined(), Resources: small(),
		VolumeMounts: []core.VolumeMount{
			mount(dataVolume, VolumeDirectory, false), mount(volumeRun, SocketDirectory, false),
			mount(volumeSecrets, SecretsDirectory, true), mount(volumeTemporary, "/tmp", false),
		},
	}
}

// small is what the agent asks for. It has no limit: its memory is bounded by its own
// configuration, and one that was ended in the middle of a backup helps nobody. Where a
// LimitRange sets one it knows of it, and collects its garbage earlier: names.EnvMemory.
func small() core.ResourceRequirements {
	return core.ResourceRequirements{Requests: core.ResourceList{
		core.ResourceCPU: resource.MustParse("50m"), core.ResourceMemory: resource.MustParse("64Mi"),
	}}
}

// resources are the server's: what it may use is kept for it.
func resources(c *v1alpha1.Cluster) core.ResourceRequirements {
	var r core.ResourceRequirements
	set := func(name core.ResourceName, q *resource.Quantity) {
		if q == nil {
			return
		}
		if r.Requests == nil {
			r.Requests, r.Limits = core.ResourceList{}, core.ResourceList{}
		}
		r.Requests[name], r.Limits[name] = *q, *q
	}
	set(core.ResourceCPU, c.Spec.Resources.CPU)
	set(core.ResourceMemory, c.Spec.Resources.Memory)
	return r
}
