// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	kubeconfig "k8s.io/client-go/tools/clientcmd/api"
)

// Context is one of a kubeconfig.
type Context struct {
	Name      string
	Server    string // the URL of the API server
	Namespace string // empty where none is set
}

// Contexts lists those of the kubeconfig files, by name. Of files that are not there
// nothing is said, as kubectl does; of two contexts with one name the first counts.
func Contexts(files []string) ([]Context, error) {
	c, err := load(files)
	if err != nil {
		return nil, err
	}
	var all []Context
	for _, name := range slices.Sorted(maps.Keys(c.Contexts)) {
		k := Context{Name: name, Namespace: c.Contexts[name].Namespace}
		if cluster := c.Clusters[c.Contexts[name].Cluster]; cluster != nil {
			k.Server = cluster.Server
		}
		all = append(all, k)
	}
	return all, nil
}

func load(files []string) (*kubeconfig.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: files}
	c, err := rules.Load()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	return c, nil
}

// restConfig is how the API server of a context is reached.
func restConfig(files []string, context, agent string) (*rest.Config, error) {
	c, err := load(files)
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.NewNonInteractiveClientConfig(*c, context, nil, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("context %q of the kubeconfig: %w", context, err)
	}
	config.UserAgent = agent
	config.WarningHandler = rest.NoWarnings{}
	return config, nil
}
