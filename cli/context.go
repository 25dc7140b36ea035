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

// place is a context: somewhere that clusters live.
type place struct {
	Name    string `json:"name"`
	Current bool   `json:"current"`
	Place   string `json:"place"`
}

func newContextCommand(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use: "context", Aliases: []string{"contexts"}, Short: "Say where the clusters are",
		Long: `Say where the clusters are.

A context is a place where clusters live. There is local, which is this machine.
--context is asked first, then $KBCLI_CONTEXT, then what "context use" wrote down.`,
		Example: "  kbcli context list\n  kbcli context use local",
	}, newContextListCommand(a), newContextUseCommand(a), newContextCurrentCommand(a))
}

// contextNames are the contexts that there are.
func contextNames() []string { return []string{localContext} }

// currentContext is the name of the context that verbs use.
func (a *app) currentContext() (string, error) {
	name, from := a.context, "--context"
	if name == "" {
		name, from = a.env("KBCLI_CONTEXT"), "$KBCLI_CONTEXT"
	}
	if name == "" {
		file, err := a.configFile()
		if err != nil {
			return localContext, nil // there is no place where one could have been written down
		}
		c, err := readConfig(file)
		if err != nil {
			return "", err
		}
		name, from = cmp.Or(c.Context, localContext), file
	}
	return name, knownContext(name, from)
}

func knownContext(name, from string) error {
	if slices.Contains(contextNames(), name) {
		return nil
	}
	p := usage("there is no context %q: this release knows local, which is this machine", name).then("kbcli context list")
	if near := v1alpha1.Nearest(name, contextNames()); near != "" {
		return p.hints("did you mean %q?", near)
	}
	if from != "" && from != "--context" {
		return p.hints("it is what %s says", from)
	}
	return p
}

// config is what is kept of a user's choices.
type config struct {
	Context string `json:"context,omitempty"`
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

func newContextListCommand(a *app) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List contexts", Args: noArgs,
		Example: "  kbcli context list",
		RunE: func(*cobra.Command, []string) error {
			current, err := a.currentContext()
			if err != nil {
				return err
			}
			dir, err := a.stateDirectory()
			if err != nil {
				return err
			}
			all := []place{{Name: localContext, Current: current == localContext, Place: dir}}
			return showValues(a, output, all, func(p place) string { return "context/" + p.Name }, func() {}, func(bool) *table {
				t := &table{header: []string{"NAME", "CURRENT", "PLACE"}}
				for _, p := range all {
					t.add(p.Name, strconv.FormatBool(p.Current), p.Place)
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
			return contextNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if err := knownContext(args[0], ""); err != nil {
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

func newContextCurrentCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "current", Short: "Print the context that verbs use", Args: noArgs,
		Example: "  kbcli context current",
		RunE: func(*cobra.Command, []string) error {
			name, err := a.currentContext()
			if err != nil {
				return err
			}
			a.say("%s", name)
			return nil
		},
	}
}
