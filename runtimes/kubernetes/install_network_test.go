// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

// end is one end of a connection: a pod, or with no namespace what no podSelector selects, as
// the node, the API server and a bucket.
type end struct {
	namespace string
	labels    labels.Set
	ports     map[string]int // of containers, by name
}

// network is the policies of the chart, as Kubernetes understands them.
type network struct {
	t        *testing.T
	policies []networking.NetworkPolicy
}

// lets tells whether all policies let a connection be.
func (n network) lets(from, to end, port int) bool {
	in, out := true, true // what no policy selects is free
	for _, p := range n.policies {
		for _, kind := range p.Spec.PolicyTypes {
			switch {
			case kind == networking.PolicyTypeIngress && n.selects(p, to):
				in = false
			case kind == networking.PolicyTypeEgress && n.selects(p, from):
				out = false
			}
		}
	}
	for _, p := range n.policies {
		for _, r := range p.Spec.Ingress {
			in = in || n.selects(p, to) && n.peer(p, r.From, from) && n.port(r.Ports, to, port)
		}
		for _, r := range p.Spec.Egress {
			out = out || n.selects(p, from) && n.peer(p, r.To, to) && n.port(r.Ports, to, port)
		}
	}
	return in && out
}

func (n network) match(s *metav1.LabelSelector, l labels.Set) bool {
	if s == nil {
		return true
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		n.t.Fatal(err)
	}
	return selector.Matches(l)
}

func (n network) selects(p networking.NetworkPolicy, e end) bool {
	return e.namespace != "" && e.namespace == p.Namespace && n.match(&p.Spec.PodSelector, e.labels)
}

func (n network) peer(p networking.NetworkPolicy, all []networking.NetworkPolicyPeer, e end) bool {
	for _, peer := range all {
		if peer.IPBlock != nil {
			n.t.Fatal("addresses of pods are not known here")
		}
		inside := e.namespace == p.Namespace
		if peer.NamespaceSelector != nil {
			inside = n.match(peer.NamespaceSelector, labels.Set{corev1.LabelMetadataName: e.namespace})
		}
		if e.namespace != "" && inside && n.match(peer.PodSelector, e.labels) {
			return true
		}
	}
	return len(all) == 0
}

func (n network) port(all []networking.NetworkPolicyPort, to end, port int) bool {
	for _, p := range all {
		if p.Port == nil || p.Port.Type == intstr.Int && p.Port.IntValue() == port || p.Port.Type == intstr.String && to.ports[p.Port.StrVal] == port {
			return true
		}
	}
	return len(all) == 0
}

// TestNetworkPolicies: what the chart allows is what the system needs. There are no policies
// for the pods of clusters and of repositories: a row that fails says what one has forgotten.
func TestNetworkPolicies(t *testing.T) {
	outside := end{}
	cluster := end{"default", names.Labels("my-pg"), map[string]int{"postgresql": 5432, "patroni": 8008}}
	volume := end{"kb-system", labels.Set{names.LabelName: names.RepositoryServer, names.LabelManagedBy: names.ManagedBy}, map[string]int{"https": 8443}}
	app := end{"shop", labels.Set{"app": "shop"}, nil}
	prometheus := end{"monitoring", labels.Set{"app": "prometheus"}, nil}
	dns := end{"kube-system", labels.Set{"k8s-app": "kube-dns"}, nil}

	for values, narrowed := range map[string]bool{
		`{}`:                      false,
		`{metrics: {port: 9000}}`: false,
		`{podLabels: {a: b}}`:     false,
		`{networkPolicy: {metricsFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]}}`: true,
	} {
		var tree map[string]any
		if err := yaml.Unmarshal([]byte(values), &tree); err != nil {
			t.Fatal(err)
		}
		all, err := render(t, tree)
		if err != nil {
			t.Fatal(err)
		}
		var d appsv1.Deployment
		if err := yaml.UnmarshalStrict([]byte(all["Deployment/kubeblocks"]), &d); err != nil {
			t.Fatal(err)
		}
		operator := end{d.Namespace, d.Spec.Template.Labels, map[string]int{}}
		for _, p := range d.Spec.Template.Spec.Containers[0].Ports {
			operator.ports[p.Name] = int(p.ContainerPort)
		}
		n := network{t: t}
		for name, text := range all {
			var p networking.NetworkPolicy
			if len(name) < 14 || name[:14] != "NetworkPolicy/" {
				continue
			}
			if err := yaml.UnmarshalStrict([]byte(text), &p); err != nil {
				t.Fatal(err)
			}
			n.policies = append(n.policies, p)
		}
		if len(n.policies) == 0 || operator.ports["probes"] == 0 || operator.ports["metrics"] == 0 {
			t.Fatalf("%s: %d policies, ports %v", values, len(n.policies), operator.ports)
		}
		for _, c := range []struct {
			from, to end
			port     int
			want     bool
			why      string
		}{
			{operator, outside, 6443, true, "operator: objects, and commands in pods, at the API server"},
			{operator, outside, 443, true, "operator: a bucket"},
			{operator, dns, 53, true, "operator: names"},
			{operator, volume, 8443, true, "operator: a repository on a volume"},
			{outside, operator, operator.ports["probes"], true, "kubelet: probes of the operator"},
			{prometheus, operator, operator.ports["metrics"], true, "Prometheus: metrics"},
			{app, operator, operator.ports["metrics"], !narrowed, "metrics are everybody's unless the chart is told whose"},
			{app, operator, 22, false, "nothing else of the operator is anybody's"},

			{cluster, outside, 6443, true, "Patroni and agent: the lock, objects"},
			{cluster, outside, 443, true, "agent: a bucket"},
			{cluster, dns, 53, true, "agent: names"},
			{cluster, volume, 8443, true, "agent, restore: a repository on a volume"},
			{cluster, cluster, 8008, true, "Patroni: what the others are, before a failover and while the API server is away"},
			{cluster, cluster, 5432, true, "a standby follows the primary, and is copied from it"},
			{outside, cluster, 8008, true, "kubelet: probes of the server"},
			{outside, cluster, 5432, true, "kbcli: psql through a port that the kubelet forwards"},
			{app, cluster, 5432, true, "whoever uses the database"},
			{outside, volume, 8443, true, "kubelet: probes of what serves a volume"},
		} {
			if got := n.lets(c.from, c.to, c.port); got != c.want {
				t.Errorf("%s: port %d: %v, want %v: %s", values, c.port, got, c.want, c.why)
			}
		}
	}
}
