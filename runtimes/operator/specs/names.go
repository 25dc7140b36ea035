// SPDX-License-Identifier: Apache-2.0

package specs

import (
	"path"
	"strconv"
	"strings"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

// component is the one part of a cluster: what runs PostgreSQL.
const component = names.PostgreSQL

// The labels and annotations of what a cluster is made of, besides those of names.
const (
	LabelScope     = "apps.kubeblocks.io/patroni-scope"    // what Patroni calls the cluster
	annotationHash = "apps.kubeblocks.io/patroni-settings" // on pods: of what Patroni reads only when it starts

	// AnnotationKeys is on pods that run, and changes with RepositoriesSecret: the kubelet
	// looks at a pod that changes at once, and else within two minutes.
	AnnotationKeys = "apps.kubeblocks.io/repositories"
)

// The containers of a pod that run before those of names.
const (
	containerCopy   = "kbcli-copy"
	containerVolume = "volume" // after containerCopy: makes the data directory, or restores it
)

// The accounts that a cluster is looked after by.
const (
	Superuser        = "postgres"
	replicationRole  = "standby"
	secretUsername   = names.KeyUsername
	secretPassword   = names.KeyPassword
	Port             = names.Port
	patroniPort      = 8008
	patroniUser      = "patroni"
	postgresUID      = 999 // of the image's user postgres
	DefaultMajor     = 15
	dataVolume       = names.VolumeData // the volumeClaimTemplate
	maxReplicas      = 16               // of a Cluster
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
	SecretsDirectory    = names.RepositoriesDirectory // of repositories: what KeepSecret returns lies here
	programDirectory    = "/kbcli"
	ProgramPath         = programDirectory + "/kbcli"
	patroniDirectory    = "/etc/patroni"
	passwordsDirectory  = "/run/patroni"
)

// The objects of the installation.
const (
	// InstallationSecret holds, in the operator's namespace, the credentials of all
	// repositories: a key is a file name below SecretsDirectory.
	InstallationSecret = names.RepositoriesSecret
	// agentClusterRole is what agents may do with what has no namespace. Each cluster
	// has a ClusterRoleBinding to it.
	agentClusterRole = "kubeblocks-agent"
	// operatorClusterRole is what the operator may do.
	operatorClusterRole = "kubeblocks-operator"
	// LeaderLease is held by the one operator that acts.
	LeaderLease = names.LeaderLease
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
func StatefulSetName(cluster string) string { return names.StatefulSet(cluster) }

// PodName is the name of a pod, from 0.
func PodName(cluster string, ordinal int) string {
	return names.Pod(cluster, ordinal)
}

// ClaimName is the name of a pod's volume claim.
func ClaimName(cluster string, ordinal int) string {
	return dataVolume + "-" + PodName(cluster, ordinal)
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
func PrimaryService(cluster string) string { return names.Service(cluster) }

// ReplicasService leads to the servers that follow it.
func ReplicasService(cluster string) string { return names.ReplicaService(cluster) }

// podsService gives each pod a name of its own in DNS.
func podsService(cluster string) string { return StatefulSetName(cluster) + "-pods" }

// ConfigEndpoints is where Patroni keeps its dynamic configuration.
func ConfigEndpoints(cluster string) string { return StatefulSetName(cluster) + "-config" }

// FailoverEndpoints is where Patroni is asked to make another server the primary.
func FailoverEndpoints(cluster string) string { return StatefulSetName(cluster) + "-failover" }

// SuperuserSecret holds the name and the password of the superuser.
func SuperuserSecret(cluster string) string { return names.SuperuserSecret(cluster) }

// patroniSecret holds those with which Patroni's members ask each other for what changes
// something: settings, restarts, copies made anew.
func patroniSecret(cluster string) string { return StatefulSetName(cluster) + "-patroni" }

// ReplicationSecret holds those of the role that standbys connect as.
func ReplicationSecret(cluster string) string { return StatefulSetName(cluster) + "-replication" }

// RepositoriesSecret holds copies of the credentials of repositories, for the agents.
func RepositoriesSecret(cluster string) string { return StatefulSetName(cluster) + "-repositories" }

// AgentBinding is the name of a cluster's ClusterRoleBinding. A namespace has no dot.
func AgentBinding(namespace, cluster string) string {
	return agentClusterRole + ":" + namespace + ":" + StatefulSetName(cluster)
}

// Selector is what all pods of a cluster have, and nothing else.
func Selector(cluster string) map[string]string {
	l := names.Labels(cluster)
	l[LabelScope] = StatefulSetName(cluster)
	return l
}

// patroniLabels are those that Patroni finds the cluster's pods and Endpoints by, and
// gives to what it makes. It adds LabelScope itself.
func patroniLabels(cluster string) map[string]string { return names.Labels(cluster) }

// Labels are those of everything that a cluster is made of.
func Labels(cluster string) map[string]string {
	l := Selector(cluster)
	l[names.LabelComponent] = component
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
