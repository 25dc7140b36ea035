// SPDX-License-Identifier: Apache-2.0

package specs

import (
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

func kind(version, name string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: version, Kind: name}
}

// meta is the metadata of an object of a cluster.
func meta(c *v1alpha1.Cluster, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: c.Namespace, Name: name, Labels: Labels(c.Name)}
}

// Services are those of a cluster. The primary's has no selector: Patroni writes its
// Endpoints. That of Patroni's configuration is there so that Kubernetes keeps the
// Endpoints of the same name.
func Services(c *v1alpha1.Cluster) []*core.Service {
	one := func(name string, spec core.ServiceSpec) *core.Service {
		return &core.Service{TypeMeta: kind("v1", "Service"), ObjectMeta: meta(c, name), Spec: spec}
	}
	ports := []core.ServicePort{{Name: component, Protocol: core.ProtocolTCP, Port: Port, TargetPort: intstr.FromString(component)}}
	replicas := Selector(c.Name)
	replicas[names.LabelRole] = names.RoleSecondary
	return []*core.Service{
		// without a selector a named target port leads nowhere
		one(PrimaryService(c.Name), core.ServiceSpec{Type: core.ServiceTypeClusterIP, Ports: []core.ServicePort{
			{Name: component, Protocol: core.ProtocolTCP, Port: Port, TargetPort: intstr.FromInt32(Port)},
		}}),
		one(ReplicasService(c.Name), core.ServiceSpec{Type: core.ServiceTypeClusterIP, Ports: ports, Selector: replicas}),
		one(podsService(c.Name), core.ServiceSpec{
			Type: core.ServiceTypeClusterIP, ClusterIP: core.ClusterIPNone, Ports: ports, Selector: Selector(c.Name),
			PublishNotReadyAddresses: true,
		}),
		one(ConfigEndpoints(c.Name), core.ServiceSpec{Type: core.ServiceTypeClusterIP, ClusterIP: core.ClusterIPNone}),
	}
}

// Passwords are the two Secrets that are made once and never changed by the operator.
// random makes a password.
func Passwords(c *v1alpha1.Cluster, random func() string) []*core.Secret {
	one := func(name, user string) *core.Secret {
		return &core.Secret{
			TypeMeta: kind("v1", "Secret"), ObjectMeta: meta(c, name), Type: core.SecretTypeBasicAuth,
			Data: map[string][]byte{secretUsername: []byte(user), secretPassword: []byte(random())},
		}
	}
	return []*core.Secret{one(SuperuserSecret(c.Name), Superuser), one(ReplicationSecret(c.Name), replicationRole), one(patroniSecret(c.Name), patroniUser)}
}

// Repositories is the Secret with the files that the agents read repositories with.
func Repositories(c *v1alpha1.Cluster, files map[string][]byte) *core.Secret {
	return &core.Secret{TypeMeta: kind("v1", "Secret"), ObjectMeta: meta(c, RepositoriesSecret(c.Name)), Type: core.SecretTypeOpaque, Data: files}
}

// DisruptionBudget lets a drain take one server at a time. A cluster of one has none: the
// node could never be drained. A stopped one has none either.
func DisruptionBudget(c *v1alpha1.Cluster) *policy.PodDisruptionBudget {
	if c.Spec.Replicas < 2 || c.Spec.Stopped {
		return nil
	}
	least := intstr.FromInt32(c.Spec.Replicas - 1)
	return &policy.PodDisruptionBudget{
		TypeMeta: kind("policy/v1", "PodDisruptionBudget"), ObjectMeta: meta(c, StatefulSetName(c.Name)),
		Spec: policy.PodDisruptionBudgetSpec{MinAvailable: &least, Selector: &metav1.LabelSelector{MatchLabels: Selector(c.Name)}},
	}
}
