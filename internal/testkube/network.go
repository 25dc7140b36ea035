// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"fmt"
	"strings"
)

const (
	firstNode = "node1"
	apiPort   = "6443"
	etcdURL   = "http://127.0.0.1:2379"
	bridge    = "node0"
)

// member is one node of a cluster.
type member struct {
	Name string
	IP   string // on the bridge that joins the nodes
	Pods string // CIDR of its pods
}

// members are the first n nodes.
func members(n int) []member {
	var all []member
	for i := 1; i <= n; i++ {
		all = append(all, member{Name: fmt.Sprintf("node%d", i), IP: fmt.Sprintf("10.250.0.%d", i), Pods: fmt.Sprintf("10.244.%d.0/24", i-1)})
	}
	return all
}

// netns is the file of the network namespace of a node other than the first.
func (m member) netns() string { return "/run/netns/" + m.Name }

// makeNetwork makes, in a network namespace that has nothing yet,
//
//	node1: this namespace                        node2: a namespace
//	  bridge node0 10.250.0.1/24 ── to-node2 ──── eth0 10.250.0.2/24
//	  pods 10.244.0.0/24                           pods 10.244.1.0/24
//
// No packet can leave: there is no way out, and what has no route is dropped at once.
// Services' addresses need a route, to anywhere, for a packet to live until it is translated.
func makeNetwork(nodes []member) error {
	first := nodes[0]
	lines := []string{
		"ip link set lo up",
		"ip link add " + bridge + " type bridge",
		"ip addr add " + first.IP + "/24 dev " + bridge,
		"ip link set " + bridge + " up",
		"ip route add blackhole default",
		"ip route add " + serviceCIDR + " dev " + bridge,
		"sysctl -qw net.ipv4.ip_forward=1",
	}
	for _, m := range nodes[1:] {
		in := "nsenter --net=" + m.netns() + " "
		lines = append(lines,
			"ip netns add "+m.Name,
			"ip link add to-"+m.Name+" type veth peer name eth0 netns "+m.Name,
			"ip link set to-"+m.Name+" master "+bridge+" up",
			in+"ip link set lo up",
			in+"ip link set eth0 up",
			in+"ip addr add "+m.IP+"/24 dev eth0",
			in+"ip route add blackhole default",
			in+"ip route add "+serviceCIDR+" dev eth0",
			in+"sysctl -qw net.ipv4.ip_forward=1",
		)
		for _, other := range nodes {
			if other == first {
				lines = append(lines, in+"ip route add "+first.Pods+" via "+first.IP)
			}
		}
		lines = append(lines, "ip route add "+m.Pods+" via "+m.IP)
	}
	for _, line := range lines {
		f := strings.Fields(line)
		if err := command(f[0], f[1:]...); err != nil {
			return err
		}
	}
	return nil
}
