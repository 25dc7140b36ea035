// SPDX-License-Identifier: Apache-2.0

package names

import (
	"fmt"
	"strings"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// The labels of everything that belongs to a cluster, and their values.
const (
	LabelName      = "app.kubernetes.io/name"
	LabelManagedBy = "app.kubernetes.io/managed-by"
	LabelComponent = "app.kubernetes.io/component"

	// EnvMemory is how much memory, in bytes, a container of kbcli may have.
	EnvMemory = "KBCLI_MEMORY"

	// LabelRole is on a pod whose server has one, written by Patroni.
	LabelRole     = "kubeblocks.io/role"
	RolePrimary   = "master" // Patroni's words until release 4
	RoleSecondary = "replica"

	PostgreSQL = "postgresql" // the value of LabelName, and the port's name
	ManagedBy  = "kbcli"
)

// The containers of a pod.
const (
	ContainerPostgreSQL = "postgresql"
	ContainerAgent      = "kbcli"
)

// Port is the one that servers listen on.
const Port = 5432

// The keys of the superuser's Secret.
const (
	KeyUsername = "username"
	KeyPassword = "password"
)

// The operator: a Deployment with LabelName Operator, in SystemNamespace unless it was
// installed elsewhere.
const (
	SystemNamespace   = "kb-system"
	Operator          = "kubeblocks"
	ContainerOperator = "operator"
	LeaderLease       = "kubeblocks-operator" // held by the one operator that acts
)

// The credentials of repositories: a Secret in the operator's namespace holds them all, a
// key of it is the name of a file below the directory, in every pod that needs it.
const (
	RepositoriesSecret    = "kubeblocks-repositories"
	RepositoriesDirectory = "/run/kubeblocks/secrets"
)

// RepositoryAccess is the key of that Secret with which the volume of a repository is
// reached.
func RepositoryAccess(repo string) string { return repo + ".volume" }

// RepositoryServer is the LabelName of what serves the volume of a repository: a StatefulSet
// of one pod, and a Service, in the operator's namespace.
const RepositoryServer = "repository"

// Repository is the name of what serves the volume of a repository.
func Repository(repo string) string { return "repository-" + repo }

// StatefulSet is that of a cluster's servers.
func StatefulSet(cluster string) string { return cluster + "-" + PostgreSQL }

// Pod is the n-th of a cluster, from 0.
func Pod(cluster string, n int) string { return fmt.Sprintf("%s-%d", StatefulSet(cluster), n) }

// Service leads to the primary.
func Service(cluster string) string { return StatefulSet(cluster) }

// ReplicaService leads to the servers that are not the primary.
func ReplicaService(cluster string) string { return StatefulSet(cluster) + "-replicas" }

// SuperuserSecret holds the superuser's name and password.
func SuperuserSecret(cluster string) string { return StatefulSet(cluster) + "-superuser" }

// Labels are on everything that belongs to a cluster; they select its pods.
func Labels(cluster string) map[string]string {
	return map[string]string{v1alpha1.LabelCluster: cluster, LabelName: PostgreSQL, LabelManagedBy: ManagedBy}
}

// Belongs tells whether the name of an object is one that a cluster's things have: its
// own, or that of a volume claim that its StatefulSet made.
func Belongs(object, cluster string) bool {
	for _, name := range []string{object, strings.TrimPrefix(object, VolumeData+"-")} {
		rest, ok := strings.CutPrefix(name, StatefulSet(cluster))
		if ok && (rest == "" || rest[0] == '-' || rest[0] == '.') {
			return true
		}
	}
	return false
}

// VolumeData is the volume of the data directory, and of the template of its claims.
const VolumeData = "data"

// AnnotationRecovers is on a pod whose server is in recovery: since when, as its agent saw it.
const AnnotationRecovers = "apps.kubeblocks.io/recovers-since"
