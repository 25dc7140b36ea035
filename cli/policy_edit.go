// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

func newEditPolicyCommand(a *app) *cobra.Command {
	var sets []string
	c := &cobra.Command{
		Use: "edit-backup-policy NAME", Aliases: []string{"edit-bp"}, Short: "Edit a backup policy", Args: oneName("backup policy"),
		Long: `Edit a backup policy.

Opens it in $KUBE_EDITOR, $VISUAL, $EDITOR or vi. What cannot be is said at the top
of the text, and it opens again. Without an editor: --set.`,
		Example: `  kbcli cluster edit-backup-policy my-pg-postgresql-backup-policy
  kbcli cluster edit-backup-policy my-pg-postgresql-backup-policy --set schedule.logfile.enable=true`,
		ValidArgsFunction: a.names(v1alpha1.KindBackupPolicy, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(sets) > 0 {
				return a.setPolicy(c.Context(), args[0], sets)
			}
			return a.editPolicy(c.Context(), args[0])
		},
	}
	c.Flags().StringArrayVar(&sets, "set", nil, "fields of the spec, schedule.logfile.enable=true,retention.ttl=7d")
	return c
}

const (
	editCancelled = "Edit cancelled, no changes made."
	editHead      = `# Edit the object below. Lines that begin with '#' are not read, and an empty
# text cancels the edit. If something cannot be, this opens again with the reason.
#
`
)

func (a *app) edited(p *v1alpha1.BackupPolicy) {
	a.say("%s edited", typedName(p))
}

// setPolicy changes single fields.
func (a *app) setPolicy(ctx context.Context, name string, texts []string) error {
	sets, err := parseSets(texts)
	if err != nil {
		return err
	}
	s, err := a.objects(ctx)
	if err != nil {
		return err
	}
	// Said before an agent is started.
	p, err := store.Get[*v1alpha1.BackupPolicy](ctx, s, a.namespace, name)
	if err != nil {
		return err
	}
	if err := assign(p, sets); err != nil {
		return err
	}
	if s, err = a.ready(ctx); err != nil {
		return err
	}
	before := ""
	p, err = store.Mutate(ctx, s, a.namespace, name, func(p *v1alpha1.BackupPolicy) error {
		before = p.ResourceVersion
		return assign(p, sets)
	})
	if err != nil {
		return err
	}
	if p.ResourceVersion == before {
		a.say(editCancelled)
		return nil
	}
	a.edited(p)
	return nil
}

// assign sets fields of the spec by their paths. A value takes the type of its field.
func assign(p *v1alpha1.BackupPolicy, sets []setting) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	var tree map[string]any
	if err := json.Unmarshal(text, &tree); err != nil {
		return err
	}
	tree["apiVersion"], tree["kind"] = p.GroupVersionKind().ToAPIVersionAndKind()
	for _, s := range sets {
		path := strings.Split("spec."+strings.TrimPrefix(s.key, "spec."), ".")
		at := tree
		for _, part := range path[:len(path)-1] {
			next, ok := at[part].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[part] = next
			}
			at = next
		}
		at[path[len(path)-1]] = scalar(s.value)
	}
	if text, err = json.Marshal(tree); err != nil {
		return err
	}
	o, err := v1alpha1.Decode(text)
	if err != nil {
		return usage("%v", err)
	}
	p.Spec = o.(*v1alpha1.BackupPolicy).Spec
	return store.Admit(p, nil)
}

// scalar is a boolean or a number where the text is one. Decode takes either
// for a text where a text is wanted.
func scalar(s string) any {
	switch {
	case s == "true" || s == "false":
		return s == "true"
	case s != "" && json.Valid([]byte(s)) && strings.IndexByte("-0123456789", s[0]) >= 0:
		return json.Number(s)
	}
	return s
}

// editPolicy is the conversation with an editor.
func (a *app) editPolicy(ctx context.Context, name string) error {
	s, err := a.objects(ctx)
	if err != nil {
		return err
	}
	p, err := store.Get[*v1alpha1.BackupPolicy](ctx, s, a.namespace, name)
	if err != nil {
		return err
	}
	shown := *p
	shown.Status = v1alpha1.BackupPolicyStatus{}
	original, err := v1alpha1.Encode(&shown)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp("", "kbcli-edit-*.yaml")
	if err != nil {
		return err
	}
	path := f.Name()
	if err := f.Close(); err != nil {
		return err
	}
	text, reasons := original, []string(nil)
	for {
		if err := os.WriteFile(path, append(heading(reasons), text...), 0o600); err != nil {
			return err
		}
		if err := a.edit(ctx, path); err != nil {
			return errors.Join(err, os.Remove(path))
		}
		answer, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		answer = withoutComments(answer)
		if bytes.Equal(answer, withoutComments(original)) || len(bytes.TrimSpace(answer)) == 0 {
			a.say(editCancelled)
			return os.Remove(path)
		}
		if reasons != nil && bytes.Equal(answer, withoutComments(text)) {
			return usage("the edit was not taken: %s", strings.Join(reasons, "; ")).hints("the text is in %s", path)
		}
		text = answer
		edited, err := a.storeEdit(ctx, p, answer)
		if reasons = rejected(err); reasons != nil {
			continue
		}
		if err != nil {
			a.note("the text is in %s", path)
			return err
		}
		if edited {
			a.edited(p)
		} else {
			a.say(editCancelled)
		}
		return os.Remove(path)
	}
}

func heading(reasons []string) []byte {
	head := editHead
	for _, r := range reasons {
		head += "# " + strings.ReplaceAll(r, "\n", "\n# ") + "\n"
	}
	if reasons != nil {
		head += "#\n"
	}
	return []byte(head)
}

var commentLine = regexp.MustCompile(`(?m)^#.*(\n|$)`)

func withoutComments(text []byte) []byte { return commentLine.ReplaceAll(text, nil) }

// storeEdit stores what was edited; changed is false if it means what was there.
func (a *app) storeEdit(ctx context.Context, p *v1alpha1.BackupPolicy, text []byte) (changed bool, err error) {
	o, err := v1alpha1.Decode(text)
	if err != nil {
		return false, err
	}
	edited, ok := o.(*v1alpha1.BackupPolicy)
	if !ok || edited.Name != p.Name || edited.Namespace != p.Namespace {
		return false, v1alpha1.FieldErrors{{Reason: fmt.Sprintf("this is no longer %s in namespace %s", typedName(p), p.Namespace)}}
	}
	if err := store.Admit(edited, p); err != nil {
		return false, err
	}
	s, err := a.ready(ctx)
	if err != nil {
		return false, err
	}
	edited.ResourceVersion, edited.UID = p.ResourceVersion, p.UID
	edited.Generation = p.Generation
	if err := store.UpdateSpec(ctx, s, edited); err != nil {
		return false, err
	}
	return edited.Generation != p.Generation || !maps.Equal(edited.Labels, p.Labels), nil
}

// rejected lists what is wrong with the text itself; nil for any other error.
func rejected(err error) []string {
	var fields v1alpha1.FieldErrors
	var syntax *v1alpha1.SyntaxError
	switch {
	case errors.As(err, &fields):
		var out []string
		for _, f := range fields {
			out = append(out, f.Error())
		}
		return out
	case errors.As(err, &syntax):
		// Its line counts without the comments, so it would point at the wrong one.
		return []string{syntax.Reason}
	}
	return nil
}

// runEditor opens a file for a person. The editor may be a command with arguments.
func (a *app) runEditor(ctx context.Context, path string) error {
	editor := "vi"
	for _, name := range []string{"KUBE_EDITOR", "VISUAL", "EDITOR"} {
		if e := a.env(name); e != "" {
			editor = e
			break
		}
	}
	c := exec.CommandContext(ctx, "/bin/sh", "-c", editor+` "$1"`, editor, path)
	c.Stdin, c.Stdout, c.Stderr = a.stdio.In, a.stdio.Err, a.stdio.Err
	if isTerminal(os.Stdout) {
		c.Stdout = os.Stdout
	}
	if err := c.Run(); err != nil {
		return failed("editor %q: %v", editor, err)
	}
	return nil
}
