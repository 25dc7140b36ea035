// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/atomicfile"
)

// localContext is this machine. It is where the clusters are unless somebody says
// otherwise; a kubeconfig that lies about says nothing.
const localContext = "local"

// The types of contexts.
const (
	typeMachine    = "machine"
	typeKubernetes = "kubernetes"
)

// place is a context: somewhere that clusters live.
type place struct {
	Name    string `json:"name"`
	Current bool   `json:"current"`
	Place   string `json:"place"`
	Type    string `json:"type"`
}

func newContextCommand(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use: "context", Aliases: []string{"contexts"}, Short: "Say where the clusters are",
		Long: `Say where the clusters are.

A context is a place where clusters live. There is local, which is this machine, and
each context of a kubeconfig is a Kubernetes. --context is asked first, then
$KBCLI_CONTEXT, then what "context use" wrote down; without any of them it is local,
whatever the current context of a kubeconfig is. The kubeconfig is that of --kubeconfig,
or the one that "context use" wrote down with the context, or $KUBECONFIG, or
~/.kube/config.`,
		Example: "  kbcli context list\n  kbcli context use local\n  kbcli cluster list --context staging",
	}, newContextListCommand(a), newContextUseCommand(a), newContextCurrentCommand(a))
}

// choice is the context that verbs use, and the files that a Kubernetes is found in.
type choice struct {
	name  string
	files []string
}

// kubeconfigFiles are where contexts of Kubernetes are looked for. written is what
// "context use" wrote down.
func (a *app) kubeconfigFiles(written string) []string {
	paths := cmp.Or(a.kubeconfig, written, a.env("KUBECONFIG"))
	if paths == "" && filepath.IsAbs(a.env("HOME")) {
		paths = filepath.Join(a.env("HOME"), ".kube", "config")
	}
	return slices.DeleteFunc(filepath.SplitList(paths), func(p string) bool { return p == "" })
}

// currentContext is the context that verbs use. A kubeconfig is read only if somebody
// named a context of it.
func (a *app) currentContext() (choice, error) {
	name, from, written := a.context, "--context", ""
	if name == "" {
		name, from = a.env("KBCLI_CONTEXT"), "$KBCLI_CONTEXT"
	}
	if name == "" {
		file, err := a.configFile()
		if err != nil {
			return choice{name: localContext}, nil // there is no place where one could have been written down
		}
		c, err := readConfig(file)
		if err != nil {
			return choice{}, err
		}
		name, from, written = cmp.Or(c.Context, localContext), file, c.Kubeconfig
	}
	k := choice{name: name, files: a.kubeconfigFiles(written)}
	return k, knownContext(k, from)
}

// knownContext says that there is no such context, where that is so.
func knownContext(k choice, from string) error {
	if k.name == localContext {
		return nil
	}
	known := []string{localContext}
	all, err := kubernetesContexts(k.files)
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.Name == k.name {
			return nil
		}
		known = append(known, c.Name)
	}
	p := usage("there is no context %q", k.name).then("kbcli context list")
	if near := v1alpha1.Nearest(k.name, known); near != "" {
		return p.hints("did you mean %q?", near)
	}
	if from != "" && from != "--context" {
		return p.hints("it is what %s says", from)
	}
	if len(all) == 0 {
		return p.hints("there is local, which is this machine; no context of a Kubernetes was found in %s", cmp.Or(strings.Join(k.files, ", "), "a kubeconfig"))
	}
	return p
}

// config is what is kept of a user's choices.
type config struct {
	Context string `json:"context,omitempty"`
	// Kubeconfig is where the context was found, as $KUBECONFIG has it.
	Kubeconfig string `json:"kubeconfig,omitempty"`
}

// configFile is $XDG_CONFIG_HOME/kbcli/config.yaml, or that of ~/.config.
func (a *app) configFile() (string, error) {
	if dir := a.env("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "kbcli", "config.yaml"), nil
	}
	if home := a.env("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".config", "kbcli", "config.yaml"), nil
	}
	return "", usage("there is no home directory to write that down in").hints("set XDG_CONFIG_HOME, or give --context each time")
}

func readConfig(path string) (config, error) {
	var c config
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read the configuration: %w", err)
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		return c, usage("%s is not YAML with a context: %s", path, strings.TrimPrefix(err.Error(), "error unmarshaling JSON: ")).then("kbcli context use local")
	}
	return c, nil
}

// contexts are those that there are: this machine, then those of the kubeconfig. That of
// the current one may be another than the one that is looked into now.
func (a *app) contexts() ([]place, error) {
	current, unknown := a.currentContext()
	dir, err := a.stateDirectory()
	if err != nil {
		return nil, err
	}
	all := []place{{Name: localContext, Current: current.name == localContext, Place: dir, Type: typeMachine}}
	files := current.files
	if current.name == localContext {
		files = a.kubeconfigFiles("")
	}
	found, err := kubernetesContexts(files)
	if err != nil {
		return nil, err
	}
	for _, c := range found {
		if c.Name != localContext { // which is taken
			all = append(all, place{Name: c.Name, Current: c.Name == current.name, Place: c.Server, Type: typeKubernetes})
		}
	}
	if unknown != nil && current.name == "" {
		return nil, unknown // the configuration cannot be read
	}
	return all, nil
}

// contextNames are for completion: what cannot be read has none.
func (a *app) contextNames() []string {
	all, err := a.contexts()
	if err != nil {
		return []string{localContext}
	}
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = p.Name
	}
	return names
}

func newContextListCommand(a *app) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List contexts", Args: noArgs,
		Example: "  kbcli context list",
		RunE: func(*cobra.Command, []string) error {
			all, err := a.contexts()
			if err != nil {
				return err
			}
			return showValues(a, output, all, func(p place) string { return "context/" + p.Name }, func() {}, func(bool) *table {
				t := &table{header: []string{"NAME", "CURRENT", "PLACE", "TYPE"}}
				for _, p := range all {
					t.add(p.Name, strconv.FormatBool(p.Current), p.Place, p.Type)
				}
				return t
			})
		},
	}
	outputFlag(c, &output, listForms)
	return c
}

func newContextUseCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Make a context the one that verbs use", Args: oneName("context"),
		Example: "  kbcli context use local",
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return a.contextNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			k := choice{name: args[0], files: a.kubeconfigFiles("")}
			if err := knownContext(k, ""); err != nil {
				return err
			}
			path, err := a.configFile()
			if err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return fmt.Errorf("write the configuration: %w", err)
			}
			// What it may hold besides is not ours, and stays; what is broken goes.
			rest := map[string]any{}
			if text, err := os.ReadFile(path); err != nil || yaml.Unmarshal(text, &rest) != nil || rest == nil {
				rest = map[string]any{}
			}
			rest["context"] = args[0]
			delete(rest, "kubeconfig")
			if args[0] != localContext {
				// Another directory, or another $KUBECONFIG, must not make it another cluster.
				if rest["kubeconfig"], err = absolutePaths(k.files); err != nil {
					return err
				}
			}
			text, err := yaml.Marshal(rest)
			if err != nil {
				return err
			}
			if err := atomicfile.Write(path, text, 0o644); err != nil {
				return err
			}
			a.say("Context %s is used", args[0])
			if over := cmp.Or(a.context, a.env("KBCLI_CONTEXT")); over != "" && over != args[0] {
				a.note("note: --context or $KBCLI_CONTEXT still says %s", over)
			}
			return nil
		},
	}
}

func absolutePaths(files []string) (string, error) {
	out := make([]string, len(files))
	for i, f := range files {
		var err error
		if out[i], err = filepath.Abs(f); err != nil {
			return "", err
		}
	}
	return strings.Join(out, string(filepath.ListSeparator)), nil
}

func newContextCurrentCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "current", Short: "Print the context that verbs use", Args: noArgs,
		Example: "  kbcli context current",
		RunE: func(*cobra.Command, []string) error {
			k, err := a.currentContext()
			if err != nil {
				return err
			}
			a.say("%s", k.name)
			return nil
		},
	}
}
