// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// hiddenCommands are commands that people do not type. Files that have one append to it.
var hiddenCommands []func(*app) *cobra.Command

func newRoot(a *app) *cobra.Command {
	root := group(&cobra.Command{
		Use:   "kbcli",
		Short: "Give a PostgreSQL back at any moment of its past",
		Example: `  kbcli cluster create my-pg
  kbcli cluster backup my-pg
  kbcli cluster restore new-cluster --restore-to-time "10 minutes ago" --source-cluster my-pg`,
		SilenceErrors: true,
		SilenceUsage:  true,
	},
		newClusterCommand(a), newAgentCommand(a), newBackupRepoCommand(a), newAddonCommand(a), newKubeBlocksCommand(a), newContextCommand(a), newDoctorCommand(a), newVersionCommand(a),
	)
	root.AddCommand(helpTopics()...)
	for _, f := range hiddenCommands {
		c := f(a)
		c.Hidden = true
		root.AddCommand(c)
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&a.namespace, "namespace", "n", "default", "the namespace")
	flags.StringVar(&a.context, "context", "", "where the clusters are; local is this machine ($KBCLI_CONTEXT)")
	flags.StringVar(&a.kubeconfig, "kubeconfig", "", "where contexts of a Kubernetes are found ($KUBECONFIG, ~/.kube/config)")
	flags.StringVar(&a.stateDir, "state-dir", "", "where this machine keeps its clusters ($KBCLI_STATE_DIR)")
	root.SetUsageTemplate(usageTemplate)
	root.SetFlagErrorFunc(flagProblem)
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	completionExamples(root)
	a.completeTree(root)
	return root
}

// group makes a command that only holds others: without one of them it prints
// its help, and a word that is none of them is an error.
func group(c *cobra.Command, children ...*cobra.Command) *cobra.Command {
	c.AddCommand(children...)
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		var known []string
		for _, child := range c.Commands() {
			if !child.Hidden {
				known = append(append(known, child.Name()), child.Aliases...)
			}
		}
		p := usage("unknown command %q for %q", args[0], c.CommandPath()).then("%s --help", c.CommandPath())
		if near := v1alpha1.Nearest(args[0], known); near != "" {
			return p.hints("did you mean %q?", near)
		}
		return p
	}
	return c
}

func flagProblem(c *cobra.Command, err error) error {
	p := usage("%v", err).then("%s --help", c.CommandPath())
	var none *pflag.NotExistError
	if errors.As(err, &none) {
		var known []string
		c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		if near := v1alpha1.Nearest(none.GetSpecifiedName(), known); near != "" && len(none.GetSpecifiedName()) > 1 {
			return p.hints("did you mean --%s?", near)
		}
	}
	return p
}

// alias lets a flag be spelt in other ways, which help does not show.
func alias(c *cobra.Command, name string, spellings ...string) {
	before := c.Flags().GetNormalizeFunc()
	c.Flags().SetNormalizeFunc(func(f *pflag.FlagSet, n string) pflag.NormalizedName {
		for _, s := range spellings {
			if n == s {
				return pflag.NormalizedName(name)
			}
		}
		return before(f, n)
	})
}

// oneName takes exactly one argument, the name of what.
func oneName(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) == 0 || args[0] == "":
			return usage("missing %s name", what).then("%s --help", c.CommandPath())
		case len(args) > 1:
			return usage("one %s name is taken, and these are %d: %s", what, len(args), strings.Join(args, " "))
		}
		return nil
	}
}

// someNames takes at least one argument.
func someNames(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage("missing %s name", what).then("%s --help", c.CommandPath())
		}
		return nil
	}
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("%s takes no arguments, and this is one: %q", c.CommandPath(), args[0])
	}
	return nil
}

// usageTemplate is cobra's without the list of other spellings.
const usageTemplate = `Usage:{{if .Runnable}}{{if not .HasAvailableSubCommands}}
  {{.UseLine}}{{end}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Available Commands:{{range .Commands}}{{if (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Global Flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasHelpSubCommands}}

Additional help topics:{{range .Commands}}{{if .IsAdditionalHelpTopicCommand}}
  {{rpad .CommandPath .CommandPathPadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableSubCommands}}

Use "{{.CommandPath}} [command] --help" for more information about a command.{{end}}
`

func outputFlag(c *cobra.Command, output *string, forms string) {
	c.Flags().StringVarP(output, "output", "o", "", "print as "+forms)
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(strings.Split(forms, "|"), cobra.ShellCompDirectiveNoFileComp))
}

func unknownOutput(output string, forms string) error {
	return usage("%s", fmt.Sprintf("there is no output %q: there are %s", output, strings.ReplaceAll(forms, "|", ", ")))
}
