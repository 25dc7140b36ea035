// SPDX-License-Identifier: Apache-2.0

package specs

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"

	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

// patroniSettings is the shape of Patroni's files and of its dynamic configuration. The
// keys of a map are printed in order.
type patroniSettings = map[string]any

// Dynamic is Patroni's dynamic configuration of a cluster: it stands in the annotation
// "config" of ConfigEndpoints, and Patroni applies it while it runs. slot is the
// replication slot of the agents, which Patroni would remove as one it does not know.
func Dynamic(c *v1alpha1.Cluster, slot string) (string, error) {
	b, err := json.Marshal(dynamic(c, slot))
	if err != nil {
		return "", fmt.Errorf("write Patroni's settings: %w", err)
	}
	return string(b), nil
}

func dynamic(c *v1alpha1.Cluster, slot string) patroniSettings {
	return patroniSettings{
		"ttl": 30, "loop_wait": 10, "retry_timeout": 10,
		// a primary that cannot reach the API server goes on while all others obey it
		"failsafe_mode": true,
		// a standby that is further behind is not made the primary by itself
		"maximum_lag_on_failover": 1 << 20,
		"ignore_slots":            []any{patroniSettings{"name": slot, "type": "physical"}},
		"postgresql": patroniSettings{
			"use_slots": true, "use_pg_rewind": true,
			"parameters": parameters(c),
			"pg_hba":     hba(),
		},
	}
}

// hba lets in over the socket the user that both containers run as, and over the network
// whoever knows a password.
func hba() []any {
	return []any{
		"local all " + Superuser + " peer",
		"local replication " + Superuser + " peer",
		// Patroni asks its own server this way whether it has left the primary's past
		"local replication " + replicationRole + " scram-sha-256",
		"local all all scram-sha-256",
		"host replication " + replicationRole + " all scram-sha-256",
		"host all all all scram-sha-256",
	}
}

// parameters are the lines of postgresql.conf: what a cluster has if it says nothing,
// then what it says, then what kbcli stands on.
func parameters(c *v1alpha1.Cluster) patroniSettings {
	p := patroniSettings{
		"max_connections": "100", "max_worker_processes": "8", "max_locks_per_transaction": "64", "max_prepared_transactions": "0",
		"log_destination": "stderr", "logging_collector": "off", "log_line_prefix": "%m [%p] %q%u@%d ",
		"password_encryption": "scram-sha-256", "ssl": "off",
		"max_wal_senders": "16", "max_replication_slots": "16",
		"wal_level": "replica", "hot_standby": "on",
		// a primary that is gone without a word is missed before Patroni's lease is out
		"wal_receiver_timeout": "20s", "wal_retrieve_retry_interval": "2s",
	}
	maps.Copy(p, walRoom(c))
	if m := c.Spec.Resources.Memory; m != nil {
		p["shared_buffers"] = megabytes(max(128<<20, m.Value()/4))
	}
	for k, v := range c.Spec.Settings {
		p[k] = v
	}
	maps.Copy(p, patroniSettings{"archive_mode": "off", "wal_log_hints": "on", "unix_socket_directories": SocketDirectory})
	return p
}

func megabytes(n int64) string { return strconv.FormatInt(n>>20, 10) + "MB" }

// local is what Patroni reads from its file when it starts. Passwords, the pod's name
// and its address come from the environment.
func local(c *v1alpha1.Cluster) patroniSettings {
	return patroniSettings{
		"scope": StatefulSetName(c.Name),
		"kubernetes": patroniSettings{
			"use_endpoints": true,
			"scope_label":   LabelScope,
			"role_label":    names.LabelRole,
			"labels":        patroniLabels(c.Name),
			"ports":         []any{patroniSettings{"name": component, "port": Port}},
		},
		"restapi": patroniSettings{"listen": "0.0.0.0:" + strconv.Itoa(patroniPort)},
		"postgresql": patroniSettings{
			"listen":               "*:" + strconv.Itoa(Port),
			"data_dir":             DataDirectory,
			"bin_dir":              BinDirectory(Major(c)),
			"pgpass":               passwordsDirectory + "/pgpass",
			"use_unix_socket":      true,
			"use_unix_socket_repl": true,
			"parameters":           patroniSettings{"unix_socket_directories": SocketDirectory},
			// a standby that diverged and cannot be rewound is copied anew; its spool is not in there
			"remove_data_directory_on_rewind_failure":     true,
			"remove_data_directory_on_diverged_timelines": true,
			"create_replica_methods":                      []any{"basebackup"},
			"basebackup":                                  []any{patroniSettings{"checkpoint": "fast"}},
			// What a standby lacks and nobody streams is asked of the archive.
			"recovery_conf": patroniSettings{"restore_command": ProgramPath + " agent standby-wal %f %p"},
			"pre_promote":   ProgramPath + " agent before-promotion",
		},
		"watchdog": patroniSettings{"mode": "off"},
	}
}

// bootstrap says how the first server is made.
func bootstrap(c *v1alpha1.Cluster, slot string) patroniSettings {
	b := patroniSettings{"dcs": dynamic(c, slot)}
	if c.Spec.Restore != nil {
		// Nothing but the restore makes this cluster's data. Where there is none, as after
		// a volume was lost, no empty server must take its place.
		b["method"] = "restored"
		b["restored"] = patroniSettings{"command": "/bin/false"}
		return b
	}
	b["initdb"] = []any{
		patroniSettings{"encoding": "UTF8"},
		patroniSettings{"locale": "C.UTF-8"},
		"data-checksums",
		patroniSettings{"auth-local": "peer"},
		patroniSettings{"auth-host": "scram-sha-256"},
	}
	return b
}

// ConfigMap holds Patroni's file.
func ConfigMap(c *v1alpha1.Cluster, slot string) (*core.ConfigMap, error) {
	all := local(c)
	all["bootstrap"] = bootstrap(c, slot)
	b, err := yaml.Marshal(all)
	if err != nil {
		return nil, fmt.Errorf("write Patroni's settings: %w", err)
	}
	return &core.ConfigMap{
		TypeMeta: kind("v1", "ConfigMap"), ObjectMeta: meta(c, StatefulSetName(c.Name)),
		Data: map[string]string{patroniConfigKey: string(b)},
	}, nil
}

// localHash changes when pods have to be started anew to read what changed.
func localHash(c *v1alpha1.Cluster) string {
	b, err := json.Marshal(local(c))
	if err != nil {
		panic(err) // texts and numbers alone
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
