// SPDX-License-Identifier: Apache-2.0

package specs

import (
	"slices"

	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

// Right is something that a program may ask of the Kubernetes API.
type Right struct {
	Group     string
	Resources []string
	Names     []string // of the objects; none: all of the namespace
	Verbs     []string
	For       string // who calls it, and what for
}

// podRights are what one cluster's pods may do in its namespace: Patroni and the agent
// have the ServiceAccount in common.
func podRights(cluster string) []Right {
	scope := StatefulSetName(cluster)
	own := []string{scope, scope + "-config", scope + "-failover", scope + "-sync"}
	var pods, claims []string
	for n := range maxReplicas {
		pods, claims = append(pods, PodName(cluster, n)), append(claims, ClaimName(cluster, n))
	}
	apps, data := v1alpha1.AppsGroup, v1alpha1.DataProtectionGroup
	return []Right{
		{"", []string{"endpoints"}, nil, []string{"create", "list", "watch"}, "Patroni: follows and makes the lock and the configuration; a new object and a list have no name to hold it to"},
		{"", []string{"endpoints"}, own, []string{"get", "patch", "update"}, "Patroni: renews the lock, writes the configuration, clears a request to switch over"},
		{"", []string{"pods"}, nil, []string{"get", "list", "watch"}, "Patroni: finds its members"},
		{"", []string{"pods"}, pods, []string{"patch"}, "Patroni: writes role and state on its own pod; agent: how full its volume is"},
		{apps, []string{"clusters"}, []string{cluster}, []string{"update"}, "agent: fills in the version and the target that a restore was found to mean"},
		{apps, []string{"clusters/status"}, []string{cluster}, []string{"get", "update"}, "agent: reports windows, archive, restore"},
		{data, []string{"backuppolicies", "backups"}, nil, []string{"get", "list", "watch"}, "agent: follows policies and wishes for backups"},
		{data, []string{"backups"}, nil, []string{"create", "delete", "update"}, "agent: asks for scheduled backups, lets go what has expired, sets the finalizer"},
		{data, []string{"backuppolicies"}, nil, []string{"update"}, "agent: notes the clock that it believes"},
		{data, []string{"backuppolicies/status", "backups/status"}, nil, []string{"get", "update"}, "agent: reports schedules and backups"},
		{"events.k8s.io", []string{"events"}, nil, []string{"create", "patch"}, "agent: tells what happened, again and again in one event"},
		{"snapshot.storage.k8s.io", []string{"volumesnapshots"}, nil, []string{"create", "delete", "get", "list", "watch"}, "agent: takes snapshots of the volume between start and stop of a backup"},
		{"", []string{"persistentvolumeclaims"}, claims, []string{"get"}, "agent: asks which driver made the volume that it snapshots"},
	}
}

// agentRights are what all agents may do with what has no namespace.
func agentRights() []Right {
	return []Right{
		{v1alpha1.DataProtectionGroup, []string{"backuprepos"}, nil, []string{"get", "list", "watch"}, "agent: finds the repository; there are no secrets in it"},
		{v1alpha1.AppsGroup, []string{"clusters"}, nil, []string{"get", "list", "watch"}, "agent: reads its cluster, the one it is restored from, and those of any namespace that are being restored from it: nothing expires under them"},
		{v1alpha1.ExtensionsGroup, []string{"addons"}, nil, []string{"get", "list", "watch"}, "agent: asks whether snapshots are enabled"},
		{"snapshot.storage.k8s.io", []string{"volumesnapshotclasses"}, nil, []string{"get", "list", "watch"}, "agent: finds the class for the volume's driver"},
	}
}

// operatorRights are what the operator may do. What it grants to agents it must have
// itself, and so the rights of podRights and agentRights are part of them.
func operatorRights() []Right {
	all := []string{"create", "delete", "get", "list", "patch", "update", "watch"}
	apps, data, ext := v1alpha1.AppsGroup, v1alpha1.DataProtectionGroup, v1alpha1.ExtensionsGroup
	return append([]Right{
		{"apps", []string{"statefulsets"}, nil, all, "operator: makes, scales and removes a cluster's StatefulSet, and what serves the volume of a repository"},
		{"", []string{"services", "configmaps", "secrets", "serviceaccounts"}, nil, all, "operator: makes what a cluster is made of, and what serves the volume of a repository; copies credentials of repositories"},
		{"", []string{"endpoints"}, nil, all, "operator: settings for Patroni, a switchover, what is left after a cluster; agents: Patroni"},
		{"", []string{"pods"}, nil, []string{"delete", "get", "list", "patch", "watch"}, "operator: restarts pods one by one; agents: Patroni"},
		{"", []string{"persistentvolumeclaims"}, nil, []string{"create", "delete", "get", "list", "patch", "update", "watch"}, "operator: grows volumes, removes those of a deleted cluster, makes those of a restored one from a snapshot and those of repositories"},
		{"events.k8s.io", []string{"events"}, nil, []string{"create", "patch"}, "operator, agents: tell what happened"},
		{"", []string{"events"}, nil, []string{"create", "patch"}, "operator: tells that it is the one of several that acts, in the words of an older API"},
		{"storage.k8s.io", []string{"storageclasses"}, nil, []string{"create", "get", "list", "watch"}, "operator: asks whether a class lets volumes grow; the addon csi-s3"},
		{"policy", []string{"poddisruptionbudgets"}, nil, all, "operator: keeps a drain from taking more than one server at once"},
		{"rbac.authorization.k8s.io", []string{"roles", "rolebindings", "clusterrolebindings"}, nil, all, "operator: the rights of each cluster's pods"},
		{"coordination.k8s.io", []string{"leases"}, nil, []string{"create", "get", "list", "patch", "update", "watch"}, "operator: of several one acts"},
		{apps, []string{"clusters", "clusters/status", "clusters/finalizers"}, nil, all, "operator: follows clusters and reports; owns what they are made of"},
		{data, []string{"backuppolicies", "backuppolicies/status", "backups", "backups/status", "backuprepos", "backuprepos/status"}, nil, all, "operator: policies of new clusters, backups that a repository holds, states of repositories; agents"},
		{ext, []string{"addons", "addons/status"}, nil, all, "operator: turns addons on and off; agents"},
		{"snapshot.storage.k8s.io", []string{"volumesnapshots"}, nil, []string{"create", "delete", "get", "list", "watch"}, "operator: a volume from a snapshot; removes those of deleted backups; agents"},
		{"snapshot.storage.k8s.io", []string{"volumesnapshotcontents"}, nil, []string{"create", "delete", "get"}, "operator: a volume from a snapshot of another namespace"},
		{"snapshot.storage.k8s.io", []string{"volumesnapshotclasses"}, nil, []string{"get", "list", "watch"}, "agents: find the class for a volume's driver"},
	}, addonRights()...)
}

// rules are rights in the words of a Role.
func rules(rights []Right) []rbac.PolicyRule {
	var out []rbac.PolicyRule
	for _, r := range rights {
		out = append(out, rbac.PolicyRule{
			APIGroups: []string{r.Group}, Resources: r.Resources, ResourceNames: r.Names, Verbs: r.Verbs,
		})
	}
	return out
}

// ServiceAccount is who a cluster's pods are.
func ServiceAccount(c *v1alpha1.Cluster) *core.ServiceAccount {
	return &core.ServiceAccount{TypeMeta: kind("v1", "ServiceAccount"), ObjectMeta: meta(c, StatefulSetName(c.Name))}
}

// Role is what a cluster's pods may do in its namespace.
func Role(c *v1alpha1.Cluster) *rbac.Role {
	return &rbac.Role{TypeMeta: kind("rbac.authorization.k8s.io/v1", "Role"), ObjectMeta: meta(c, StatefulSetName(c.Name)), Rules: rules(podRights(c.Name))}
}

// RoleBinding gives a cluster's pods its Role.
func RoleBinding(c *v1alpha1.Cluster) *rbac.RoleBinding {
	name := StatefulSetName(c.Name)
	return &rbac.RoleBinding{
		TypeMeta: kind("rbac.authorization.k8s.io/v1", "RoleBinding"), ObjectMeta: meta(c, name),
		RoleRef:  rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "Role", Name: name},
		Subjects: []rbac.Subject{{Kind: rbac.ServiceAccountKind, Namespace: c.Namespace, Name: name}},
	}
}

// ClusterRoleBinding gives a cluster's pods agentClusterRole. It has no owner, which
// would have to be without a namespace: the operator removes it.
func ClusterRoleBinding(c *v1alpha1.Cluster) *rbac.ClusterRoleBinding {
	m := meta(c, AgentBinding(c.Namespace, c.Name))
	m.Namespace = ""
	return &rbac.ClusterRoleBinding{
		TypeMeta: kind("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"), ObjectMeta: m,
		RoleRef:  rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: agentClusterRole},
		Subjects: []rbac.Subject{{Kind: rbac.ServiceAccountKind, Namespace: c.Namespace, Name: StatefulSetName(c.Name)}},
	}
}

// ClusterRoles are those of the installation: agentClusterRole, operatorClusterRole and
// SnapshotController.
func ClusterRoles() []*rbac.ClusterRole {
	one := func(name string, rights []Right) *rbac.ClusterRole {
		return &rbac.ClusterRole{
			TypeMeta:   kind("rbac.authorization.k8s.io/v1", "ClusterRole"),
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{names.LabelManagedBy: names.ManagedBy}},
			Rules:      rules(rights),
		}
	}
	return []*rbac.ClusterRole{one(agentClusterRole, agentRights()), one(operatorClusterRole, operatorRights()), snapshotControllerRole()}
}

// rights are all that is granted, for people: by whom it is held.
func rights(cluster string) map[string][]Right {
	return map[string][]Right{
		"pods of " + cluster: slices.Concat(podRights(cluster), agentRights()),
		"operator":           slices.Concat(operatorRights(), operatorOwnRights()),
		"snapshots":          slices.Concat(snapshotControllerRights(), snapshotControllerOwnRights()),
	}
}
