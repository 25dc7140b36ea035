// SPDX-License-Identifier: Apache-2.0

package specs

import (
	"path"
	"strconv"
	"strings"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// Component is the one part of a cluster: what runs PostgreSQL.
const Component = "postgresql"

// The labels of what a cluster is made of, besides v1alpha1.LabelCluster.
const (
	LabelName      = "app.kubernetes.io/name"              // "postgresql"
	LabelManagedBy = "app.kubernetes.io/managed-by"        // "kubeblocks"
	LabelComponent = "apps.kubeblocks.io/component-name"   // Component
	LabelScope     = "apps.kubeblocks.io/patroni-scope"    // what Patroni calls the cluster
	LabelRole      = "kubeblocks.io/role"                  // of a pod: RolePrimary, RoleReplica; Patroni writes it
	managedBy      = "kubeblocks"                          // the value of LabelManagedBy
	AnnotationHash = "apps.kubeblocks.io/patroni-settings" // on pods: of what Patroni reads only when it starts
)

// The values of LabelRole. They are Patroni's words of this release.
const (
	RolePrimary = "master"
	RoleReplica = "replica"
)

// The containers of a pod.
const (
	ContainerPostgreSQL = "postgresql"
	ContainerAgent      = "kbcli"
	ContainerCopy       = "kbcli-copy" // before the others
	ContainerVolume     = "volume"     // after ContainerCopy: makes the data directory, or restores it
)

// The accounts that a cluster is looked after by.
const (
	Superuser        = "postgres"
	ReplicationRole  = "standby"
	SecretUsername   = "username" // key of a Secret
	SecretPassword   = "password" // key of a Secret
	Port             = 5432
	PatroniPort      = 8008
	PostgresUID      = 26 // of the image's user postgres
	DefaultMajor     = 15
	DataVolume       = "data" // the volumeClaimTemplate
	MaxReplicas      = 16     // of a Cluster
	patroniConfigKey = "patroni.yml"
)

// Where things are in a pod. All that must survive a restart is on the data volume.
const (
	VolumeDirectory     = "/var/lib/postgresql"
	DataDirectory       = VolumeDirectory + "/pgroot/data"
	SpoolDirectory      = VolumeDirectory + "/spool"
	RecoveryDirectory   = VolumeDirectory + "/recovery" // while it is restored
	TablespaceDirectory = VolumeDirectory + "/tablespaces"
	SocketDirectory     = "/run/postgresql"
	SecretsDirectory    = "/run/kubeblocks/secrets" // of repositories: what KeepSecret returns lies here
	ProgramDirectory    = "/kbcli"
	ProgramPath         = ProgramDirectory + "/kbcli"
	patroniDirectory    = "/etc/patroni"
	passwordsDirectory  = "/run/patroni"
)

// The objects of the installation.
const (
	// InstallationSecret holds, in the operator's namespace, the credentials of all
	// repositories: a key is a file name below SecretsDirectory.
	InstallationSecret = "kubeblocks-repositories"
	// AgentClusterRole is what agents may do with what has no namespace. Each cluster
	// has a ClusterRoleBinding to it.
	AgentClusterRole = "kubeblocks-agent"
	// OperatorClusterRole is what the operator may do.
	OperatorClusterRole = "kubeblocks-operator"
	// LeaderLease is held by the one operator that acts.
	LeaderLease = "kubeblocks-operator"
)

// SecretPath is where the operator and the agents find a secret of a repository.
func SecretPath(name string) string { return path.Join(SecretsDirectory, name) }

// SecretKey is the key in InstallationSecret of a path that SecretPath made.
func SecretKey(p string) (string, bool) {
	dir, name := path.Split(p)
	return name, path.Clean(dir) == SecretsDirectory && name != ""
}

// StatefulSetName is the name of a cluster's StatefulSet, ServiceAccount, Role and
// ConfigMap, of the Service that leads to the primary, and of Patroni's scope.
func StatefulSetName(cluster string) string { return cluster + "-" + Component }

// PodName is the name of a pod, from 0.
func PodName(cluster string, ordinal int) string {
	return StatefulSetName(cluster) + "-" + strconv.Itoa(ordinal)
}

// ClaimName is the name of a pod's PersistentVolumeClaim.
func ClaimName(cluster string, ordinal int) string {
	return DataVolume + "-" + PodName(cluster, ordinal)
}

// Ordinal is the number of a pod of the cluster; -1 if the name is not that of one.
func Ordinal(cluster, pod string) int {
	digits, ok := strings.CutPrefix(pod, StatefulSetName(cluster)+"-")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 0 || strconv.Itoa(n) != digits {
		return -1
	}
	return n
}

// PrimaryService leads to the server that takes writes.
func PrimaryService(cluster string) string { return StatefulSetName(cluster) }

// ReplicasService leads to the servers that follow it.
func ReplicasService(cluster string) string { return StatefulSetName(cluster) + "-replicas" }

// PodsService gives each pod a name of its own in DNS.
func PodsService(cluster string) string { return StatefulSetName(cluster) + "-pods" }

// ConfigEndpoints is where Patroni keeps its dynamic configuration.
func ConfigEndpoints(cluster string) string { return StatefulSetName(cluster) + "-config" }

// FailoverEndpoints is where Patroni is asked to make another server the primary.
func FailoverEndpoints(cluster string) string { return StatefulSetName(cluster) + "-failover" }

// SuperuserSecret holds the name and the password of the superuser.
func SuperuserSecret(cluster string) string { return StatefulSetName(cluster) + "-superuser" }

// ReplicationSecret holds those of the role that standbys connect as.
func ReplicationSecret(cluster string) string { return StatefulSetName(cluster) + "-replication" }

// RepositoriesSecret holds copies of the credentials of repositories, for the agents.
func RepositoriesSecret(cluster string) string { return StatefulSetName(cluster) + "-repositories" }

// AgentBinding is the name of a cluster's ClusterRoleBinding. A namespace has no dot.
func AgentBinding(namespace, cluster string) string {
	return AgentClusterRole + ":" + namespace + ":" + StatefulSetName(cluster)
}

// Selector is what all pods of a cluster have, and nothing else.
func Selector(cluster string) map[string]string {
	return map[string]string{LabelName: Component, v1alpha1.LabelCluster: cluster, LabelScope: StatefulSetName(cluster)}
}

// Labels are those of everything that a cluster is made of.
func Labels(cluster string) map[string]string {
	l := Selector(cluster)
	l[LabelManagedBy], l[LabelComponent] = managedBy, Component
	return l
}

// Major is the release that a Cluster asks for.
func Major(c *v1alpha1.Cluster) int {
	n, err := strconv.Atoi(strings.TrimPrefix(c.Spec.ClusterVersionRef, "postgresql-"))
	if err != nil {
		return DefaultMajor
	}
	return n
}

// VersionRef is the clusterVersionRef of a release.
func VersionRef(major int) string { return "postgresql-" + strconv.Itoa(major) }

// BinDirectory is where the image of a release has PostgreSQL's programs.
func BinDirectory(major int) string { return "/usr/lib/postgresql/" + strconv.Itoa(major) + "/bin" }
