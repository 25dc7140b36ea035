// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	kubeconfig "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"

	files "github.com/kbcli/kbcli/deploy/helm"
	"github.com/kbcli/kbcli/runtimes/local"
)

// loadChart is the chart that is in this program, of the program's release.
func loadChart(version string) (*chart.Chart, error) {
	root := files.Files()
	var all []*loader.BufferedFile
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(root, path)
		all = append(all, &loader.BufferedFile{Name: path, Data: b})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the chart: %w", err)
	}
	c, err := loader.LoadFiles(all)
	if err != nil {
		return nil, fmt.Errorf("read the chart: %w", err)
	}
	c.Metadata.Version, c.Metadata.AppVersion = chartVersion(version), version
	return c, nil
}

var semantic = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)

// chartVersion is a release as a chart must have it.
func chartVersion(version string) string {
	if v := strings.TrimPrefix(version, "v"); semantic.MatchString(v) {
		return v
	}
	return "0.0.0-x" + regexp.MustCompile(`[^0-9A-Za-z-]`).ReplaceAllString(version, "-")
}

func coalesce(c *chart.Chart, values map[string]any) (map[string]any, error) {
	v, err := chartutil.CoalesceValues(c, values)
	return v, err
}

// schemaReason is what is wrong with values, when that is what err is about.
func schemaReason(err error) (string, bool) {
	_, reasons, ok := strings.Cut(err.Error(), "values don't meet the specifications of the schema(s) in the following chart(s):")
	if !ok {
		return "", false
	}
	var out []string
	for line := range strings.Lines(reasons) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "- ")
		if line != "" && line != "kubeblocks:" {
			out = append(out, strings.TrimPrefix(line, "at "))
		}
	}
	return strings.Join(out, "; "), true
}

// leaves are the values that are no maps, by their path, and maps with nothing in them.
func leaves(prefix string, tree map[string]any) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, k := range slices.Sorted(maps.Keys(tree)) {
			switch v := tree[k].(type) {
			case map[string]any:
				for path, text := range leaves(prefix+k+".", v) {
					if !yield(path, text) {
						return
					}
				}
			case nil:
			case []any:
				b, err := yaml.Marshal(v)
				if err != nil || !yield(prefix+k, strings.TrimSpace(string(b))) {
					return
				}
			default:
				if !yield(prefix+k, fmt.Sprint(v)) {
					return
				}
			}
		}
	}
}

// SettingKeys are those of the page, and then the chart's others in the order of the
// alphabet. A map that takes any name ends with a dot.
func (r *Runtime) SettingKeys() []string {
	keys := local.Settings{}.SettingKeys()
	b, err := fs.ReadFile(files.Files(), "values.yaml")
	if err != nil {
		return keys
	}
	var tree map[string]any
	if err := yaml.Unmarshal(b, &tree); err != nil {
		return keys
	}
	for _, k := range chartKeys("", tree) {
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// openMaps are maps of the chart whose keys are not the chart's.
var openMaps = []string{"resources.requests", "resources.limits", "nodeSelector", "affinity", "podAnnotations", "podLabels"}

func chartKeys(prefix string, tree map[string]any) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(tree)) {
		m, ok := tree[k].(map[string]any)
		switch {
		case slices.Contains(openMaps, prefix+k):
			out = append(out, prefix+k+".")
		case ok:
			out = append(out, chartKeys(prefix+k+".", m)...)
		default:
			out = append(out, prefix+k)
		}
	}
	return out
}

// helm is Helm in a namespace: releases are Secrets there, as `helm list` expects.
func (r *Runtime) helm(namespace string) (*action.Configuration, error) {
	c := &action.Configuration{}
	err := c.Init(&getter{config: r.config, namespace: namespace}, namespace, "secret", func(format string, args ...any) {
		r.log.Debug("helm", "said", fmt.Sprintf(format, args...))
	})
	if err != nil {
		return nil, fmt.Errorf("open Helm: %w", err)
	}
	return c, nil
}

// getter hands the way to the API server to Helm.
type getter struct {
	config    *rest.Config
	namespace string
	cached    discovery.CachedDiscoveryInterface
}

func (g *getter) ToRESTConfig() (*rest.Config, error) { return rest.CopyConfig(g.config), nil }

func (g *getter) ToDiscoveryClient() (discovery.CachedDiscoveryInterface, error) {
	if g.cached == nil {
		d, err := discovery.NewDiscoveryClientForConfig(g.config)
		if err != nil {
			return nil, err
		}
		g.cached = memory.NewMemCacheClient(d)
	}
	return g.cached, nil
}

func (g *getter) ToRESTMapper() (meta.RESTMapper, error) {
	d, err := g.ToDiscoveryClient()
	if err != nil {
		return nil, err
	}
	return restmapper.NewShortcutExpander(restmapper.NewDeferredDiscoveryRESTMapper(d), d, nil), nil
}

func (g *getter) ToRawKubeConfigLoader() clientcmd.ClientConfig {
	return clientcmd.NewDefaultClientConfig(*kubeconfig.NewConfig(), &clientcmd.ConfigOverrides{Context: kubeconfig.Context{Namespace: g.namespace}})
}
