// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

const noFiles = cobra.ShellCompDirectiveNoFileComp

// names completes the names of objects of one kind. most is how many arguments
// the command takes, 0 for any number.
func (a *app) names(kind string, most int) completion {
	return a.namesOf(kind, most, func(*cobra.Command, v1alpha1.Object) bool { return true })
}

// namesOf is names of those objects that are wanted.
func (a *app) namesOf(kind string, most int, wanted func(*cobra.Command, v1alpha1.Object) bool) completion {
	return func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, noFiles
		}
		ctx, cancel := context.WithTimeout(c.Context(), completionPatience)
		defer cancel()
		s, err := a.objects(ctx)
		if err != nil {
			return nil, noFiles
		}
		k, _ := v1alpha1.LookupKind(kind)
		namespace := a.namespace
		if !k.Namespaced {
			namespace = ""
		}
		objects, _ := s.List(ctx, kind, namespace, nil) // what can be read helps
		var out []string
		for _, o := range objects {
			if strings.HasPrefix(o.GetName(), typed) && !slices.Contains(args, o.GetName()) && wanted(c, o) {
				out = append(out, o.GetName())
			}
		}
		return out, noFiles
	}
}

// completeFlag completes the value of a flag with names of objects.
// Where the command line names a cluster, they are of what belongs to it.
func (a *app) completeFlag(c *cobra.Command, flag, kind string) {
	_ = c.RegisterFlagCompletionFunc(flag, asFlag(a.namesOf(kind, 0, ofNamedCluster)))
}

// asFlag makes a completion of arguments one of a flag, whose value may be a list.
func asFlag(f completion) completion {
	return func(c *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		done, last := "", typed
		if i := strings.LastIndexByte(typed, ','); i >= 0 {
			done, last = typed[:i+1], typed[i+1:]
		}
		out, directive := f(c, strings.Split(done, ","), last)
		for i := range out {
			out[i] = done + out[i]
		}
		return out, directive
	}
}

// completeTree gives every flag that a shell can help with its completion, unless its
// command has given it one.
func (a *app) completeTree(c *cobra.Command) {
	c.Flags().VisitAll(func(f *pflag.Flag) { a.complete(c, f) })
	c.PersistentFlags().VisitAll(func(f *pflag.Flag) { a.complete(c, f) })
	for _, child := range c.Commands() {
		a.completeTree(child)
	}
}

func (a *app) complete(c *cobra.Command, f *pflag.Flag) {
	if _, has := c.GetFlagCompletionFunc(f.Name); has {
		return
	}
	var do completion
	path := strings.TrimPrefix(c.CommandPath(), "kbcli ")
	switch f.Name {
	case "namespace":
		do = a.namespaces
	case "context":
		do = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return a.contextNames(), noFiles
		}
	case "cluster-definition":
		do = cobra.FixedCompletions([]string{"postgresql"}, noFiles)
	case "cluster-version":
		do = cobra.FixedCompletions(clusterVersions(), noFiles)
	case "provider":
		do = cobra.FixedCompletions([]string{string(v1alpha1.ProviderFilesystem), string(v1alpha1.ProviderPVC), string(v1alpha1.ProviderS3)}, noFiles)
	case "restore-to-time":
		do = cobra.FixedCompletions([]string{"now", "earliest", "latest", "10 minutes ago", "yesterday 15:00"}, noFiles)
	case "set", "set-string":
		do = setKeys(path)
	case "username", "as-user":
		do = a.accountNames
	case "name", "policy", "backup-policy", "backup":
		do = a.completeName(path, f.Name)
	case "state-dir", "data-directory", "path":
		do = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		}
	default:
		if strings.HasSuffix(f.Name, "-file") || f.Name == "values" {
			do = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				return nil, cobra.ShellCompDirectiveDefault
			}
		}
	}
	if do != nil {
		_ = c.RegisterFlagCompletionFunc(f.Name, do) // an error says that there is one
	}
}

// completeName completes the name of what a verb is about.
func (a *app) completeName(path, flag string) completion {
	switch {
	case path == "cluster list-backup-policy", flag == "policy", flag == "backup-policy":
		return asFlag(a.namesOf(v1alpha1.KindBackupPolicy, 0, ofNamedCluster))
	case flag == "backup", path == "cluster list-backup", path == "cluster delete-backup":
		return asFlag(a.namesOf(v1alpha1.KindBackup, 0, ofNamedCluster))
	}
	return nil
}

// ofNamedCluster keeps what belongs to the cluster that the command line names: as an
// argument, or as the source of a restore.
func ofNamedCluster(c *cobra.Command, o v1alpha1.Object) bool {
	cluster := ""
	switch o := o.(type) {
	case *v1alpha1.Backup:
		cluster = o.Spec.ClusterRef
	case *v1alpha1.BackupPolicy:
		cluster = o.Spec.ClusterRef
	default:
		return true
	}
	if f := c.Flags().Lookup("source-cluster"); f != nil {
		return f.Value.String() == "" || f.Value.String() == cluster
	}
	args := c.Flags().Args()
	return c.Name() == "create" || len(args) == 0 || slices.Contains(args, cluster)
}

// namespaces are those in which something is.
func (a *app) namespaces(c *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(c.Context(), completionPatience)
	defer cancel()
	s, err := a.objects(ctx)
	if err != nil {
		return nil, noFiles
	}
	out := []string{"default"}
	for _, k := range v1alpha1.Kinds() {
		if !k.Namespaced {
			continue
		}
		objects, _ := s.List(ctx, k.Name, "", nil) // what can be read helps
		for _, o := range objects {
			out = append(out, o.GetNamespace())
		}
	}
	slices.Sort(out)
	out = slices.DeleteFunc(slices.Compact(out), func(ns string) bool { return !strings.HasPrefix(ns, typed) })
	return out, noFiles
}

// completionPatience is how long a shell waits for names.
const completionPatience = 2 * time.Second

// accountNames asks the server of the cluster that was named.
func (a *app) accountNames(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 || c.Name() == "create-account" {
		return nil, noFiles
	}
	ctx, cancel := context.WithTimeout(c.Context(), completionPatience)
	defer cancel()
	s, err := a.objects(ctx)
	if err != nil {
		return nil, noFiles
	}
	cluster, err := store.Get[*v1alpha1.Cluster](ctx, s, a.namespace, args[0])
	if err != nil || cluster.Status.Phase != v1alpha1.ClusterRunning {
		return nil, noFiles
	}
	rt, err := a.runtime(ctx)
	if err != nil {
		return nil, noFiles
	}
	conn, err := rt.Admin(ctx, cluster, "postgres")
	if err != nil {
		return nil, noFiles
	}
	defer conn.Close(context.WithoutCancel(ctx))
	all, _ := accounts(ctx, conn, "") // without them there is nothing to help with
	var out []string
	for _, x := range all {
		if strings.HasPrefix(x.Username, typed) {
			out = append(out, x.Username)
		}
	}
	return out, noFiles
}

// setKeys completes the keys of a --set, one after the other, and yes or no.
func setKeys(path string) completion {
	var keys []string
	switch path {
	case "cluster create":
		keys = shapeKeys
	case "cluster edit-backup-policy":
		keys = fieldPaths(reflect.TypeFor[v1alpha1.BackupPolicySpec](), "")
	case "addon enable":
		keys = s3Keys
	case "kubeblocks install", "kubeblocks upgrade", "kubeblocks config":
		keys = installKeys
	}
	return func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		parts := splitSets(typed)
		last := parts[len(parts)-1]
		done := strings.TrimSuffix(typed, last)
		if i := strings.LastIndexByte(last, ','); i >= 0 { // another key begins
			done, last = typed[:len(typed)-len(last)+i+1], last[i+1:]
		}
		if key, value, ok := strings.Cut(last, "="); ok {
			if !strings.HasSuffix(strings.ToLower(key), "enable") && !strings.HasSuffix(key, ".enabled") {
				return nil, noFiles
			}
			var out []string
			for _, v := range []string{"true", "false"} {
				if strings.HasPrefix(v, value) {
					out = append(out, done+key+"="+v)
				}
			}
			return out, noFiles
		}
		var out []string
		for _, k := range keys {
			if strings.HasPrefix(k, last) {
				out = append(out, done+k+"=")
			}
		}
		return out, noFiles | cobra.ShellCompDirectiveNoSpace
	}
}

// fieldPaths are the paths of what can be set in a spec: what is no struct of ours.
func fieldPaths(t reflect.Type, prefix string) []string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t.PkgPath() != reflect.TypeFor[v1alpha1.BackupPolicySpec]().PkgPath() {
		return []string{prefix}
	}
	var out []string
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		if prefix != "" {
			name = prefix + "." + name
		}
		out = append(out, fieldPaths(f.Type, name)...)
	}
	return out
}

// completionExamples says how each shell is told.
func completionExamples(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Short = "Print what a shell needs to complete commands, names and flags"
		c.Example = "  source <(kbcli completion bash)"
		for shell, line := range map[string]string{
			"bash":       "  source <(kbcli completion bash)\n  kbcli completion bash >/etc/bash_completion.d/kbcli",
			"zsh":        "  source <(kbcli completion zsh)\n  kbcli completion zsh >\"${fpath[1]}/_kbcli\"",
			"fish":       "  kbcli completion fish | source\n  kbcli completion fish >~/.config/fish/completions/kbcli.fish",
			"powershell": "  kbcli completion powershell | Out-String | Invoke-Expression",
		} {
			if child, _, err := c.Find([]string{shell}); err == nil && child != c {
				child.Short = "Print it for " + shell
				child.Long = ""
				child.Example = line
			}
		}
	}
}
