// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// names completes the names of objects of one kind. most is how many arguments
// the command takes, 0 for any number.
func (a *app) names(kind string, most int) completion {
	return func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		const files = cobra.ShellCompDirectiveNoFileComp
		if most > 0 && len(args) >= most {
			return nil, files
		}
		s, err := a.objects(c.Context())
		if err != nil {
			return nil, files
		}
		k, _ := v1alpha1.LookupKind(kind)
		namespace := a.namespace
		if !k.Namespaced {
			namespace = ""
		}
		objects, _ := s.List(c.Context(), kind, namespace, nil) // what can be read helps
		var out []string
		for _, o := range objects {
			if strings.HasPrefix(o.GetName(), typed) && !slices.Contains(args, o.GetName()) {
				out = append(out, o.GetName())
			}
		}
		return out, files
	}
}

// completeFlag completes the value of a flag with names of objects.
func (a *app) completeFlag(c *cobra.Command, flag, kind string) {
	f := a.names(kind, 0)
	_ = c.RegisterFlagCompletionFunc(flag, func(c *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return f(c, nil, typed)
	})
}
