// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/humantime"
	"github.com/kbcli/kbcli/runtimes/store"
)

const none = "<none>"

// table is kubectl's: three spaces between columns, no rules.
type table struct {
	header []string
	rows   [][]string
	blanks bool // an empty cell stays empty
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer) {
	t.clean()
	widths := make([]int, len(t.header))
	for _, r := range append([][]string{t.header}, t.rows...) {
		widen(widths, r)
	}
	writeRow(w, widths, t.header)
	for _, r := range t.rows {
		writeRow(w, widths, r)
	}
}

// clean makes each cell one line, whatever an error message in it holds.
func (t *table) clean() {
	for _, r := range t.rows {
		for i := range r {
			if r[i] == "" && !t.blanks {
				r[i] = none
			}
			r[i] = strings.Join(strings.Fields(r[i]), " ")
		}
	}
}

func widen(widths []int, row []string) {
	for i, cell := range row {
		widths[i] = max(widths[i], utf8.RuneCountInString(cell))
	}
}

func writeRow(w io.Writer, widths []int, row []string) {
	var b strings.Builder
	for i, cell := range row {
		b.WriteString(cell)
		b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+3))
	}
	fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
}

// facts are names and values, one a line.
type facts [][2]string

func (f *facts) add(name, value string) {
	if value != "" {
		*f = append(*f, [2]string{name + ":", value})
	}
}

func (f facts) write(w io.Writer) {
	width := 0
	for _, p := range f {
		width = max(width, len(p[0]))
	}
	for _, p := range f {
		fmt.Fprintf(w, "%-*s   %s\n", width, p[0], p[1])
	}
}

// listing is the flags of a list.
type listing struct {
	all      bool
	selector string
	output   string
	watch    bool
}

const listForms = "json|yaml|wide|name"

func (l *listing) flags(c *cobra.Command, namespaced bool) {
	if namespaced {
		c.Flags().BoolVarP(&l.all, "all-namespaces", "A", false, "of all namespaces")
	}
	c.Flags().StringVarP(&l.selector, "selector", "l", "", "only what has these labels: key=value,key!=value,key in (a,b),!key")
	outputFlag(c, &l.output, listForms)
}

// list gets objects. What cannot be read is a warning, and the rest is shown.
func list[T v1alpha1.Object](ctx context.Context, a *app, l listing) ([]T, error) {
	s, err := a.objects(ctx)
	if err != nil {
		return nil, err
	}
	selector, err := parseSelector(l.selector)
	if err != nil {
		return nil, err
	}
	namespace := a.namespace
	if l.all {
		namespace = ""
	}
	got, err := store.List[T](ctx, s, namespace, nil)
	got = slices.DeleteFunc(got, func(o T) bool { return !selector.Matches(k8slabelsOf(o)) })
	var broken store.BrokenObjects
	if errors.As(err, &broken) {
		for _, b := range broken {
			a.warn("%v", b)
		}
		err = nil
	}
	return got, err
}

func k8slabelsOf(o v1alpha1.Object) k8slabels.Set { return o.GetLabels() }

// parseSelector reads a selector as kubectl does, by equality and by sets.
func parseSelector(text string) (k8slabels.Selector, error) {
	s, err := k8slabels.Parse(text)
	if err != nil {
		return nil, usage("selector %q: %v", text, err).hints("such as -l key=value, -l 'key in (a,b)', -l '!key'")
	}
	return s, nil
}

// show prints objects in the form that was asked for. In a table the words for
// none go to stderr; plural is "backups".
func show[T v1alpha1.Object](a *app, l listing, objects []T, plural string, t func(wide bool) *table) error {
	switch l.output {
	case "json", "yaml":
		return a.objectList(l.output, asObjects(objects))
	case "name":
		for _, o := range objects {
			a.say("%s", typedName(o))
		}
		return nil
	case "", "wide":
	default:
		return unknownOutput(l.output, listForms)
	}
	if len(objects) == 0 {
		a.none(plural, l.all)
		return nil
	}
	t(l.output == "wide").write(a.stdio.Out)
	return nil
}

// showValues prints what is no object in the form that was asked for: JSON and YAML
// are {"items": […]}.
func showValues[T any](a *app, form string, values []T, name func(T) string, empty func(), t func(wide bool) *table) error {
	switch form {
	case "json", "yaml":
		if values == nil {
			values = []T{}
		}
		return a.value(form, map[string]any{"items": values})
	case "name":
		for _, v := range values {
			a.say("%s", name(v))
		}
		return nil
	case "", "wide":
	default:
		return unknownOutput(form, listForms)
	}
	if len(values) == 0 {
		empty()
		return nil
	}
	t(form == "wide").write(a.stdio.Out)
	return nil
}

// none says that a list is empty. It is not an answer that a script could take for a row.
func (a *app) none(plural string, everywhere bool) {
	if everywhere {
		a.note("No %s found.", plural)
		return
	}
	a.note("No %s found in %s namespace.", plural, a.namespace)
}

func asObjects[T v1alpha1.Object](in []T) []v1alpha1.Object {
	out := make([]v1alpha1.Object, len(in))
	for i, o := range in {
		out[i] = o
	}
	return out
}

// typedName is "cluster.apps.kubeblocks.io/my-pg".
func typedName(o v1alpha1.Object) string {
	k := v1alpha1.KindOf(o)
	return k.Singular + "." + k.Group + "/" + o.GetName()
}

func (a *app) objectList(form string, objects []v1alpha1.Object) error {
	if form == "json" {
		if objects == nil {
			objects = []v1alpha1.Object{}
		}
		return a.value(form, map[string]any{"apiVersion": "v1", "kind": "List", "items": objects})
	}
	// By hand, so that fields stand in the order of the types.
	var b bytes.Buffer
	b.WriteString("apiVersion: v1\nkind: List\nitems:")
	if len(objects) == 0 {
		b.WriteString(" []")
	}
	b.WriteString("\n")
	for _, o := range objects {
		text, err := v1alpha1.Encode(o)
		if err != nil {
			return err
		}
		prefix := "- "
		for line := range strings.Lines(string(text)) {
			b.WriteString(prefix + line)
			prefix = "  "
		}
	}
	_, err := a.stdio.Out.Write(b.Bytes())
	return err
}

// describeForms: a describe has no more to say when it is wide.
const describeForms = listForms

// object prints one object in a form other than the describe's own; done is
// false for that.
func (a *app) object(form string, o v1alpha1.Object) (done bool, err error) {
	switch form {
	case "", "wide":
		return false, nil
	case "name":
		a.say("%s", typedName(o))
	case "yaml":
		text, err := v1alpha1.Encode(o)
		if err != nil {
			return true, err
		}
		_, err = a.stdio.Out.Write(text)
		return true, err
	case "json":
		return true, a.value(form, o)
	default:
		return true, unknownOutput(form, describeForms)
	}
	return true, nil
}

// value prints anything as JSON or YAML.
func (a *app) value(form string, v any) error {
	var text []byte
	var err error
	switch form {
	case "json":
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "    ")
		err = enc.Encode(v)
		text = b.Bytes()
	case "yaml":
		text, err = yaml.Marshal(v)
	default:
		return unknownOutput(form, "json|yaml")
	}
	if err != nil {
		return err
	}
	_, err = a.stdio.Out.Write(text)
	return err
}

// at prints a moment to the minute; none is "".
func (a *app) at(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return humantime.Format(t, a.zone)
}

// span prints two moments to the second, both of them inside the span: what is
// printed must be a target that can be reached.
func (a *app) span(from, to time.Time) string {
	first, last := inward(from, to)
	if !first.Equal(first.Truncate(time.Second)) || !last.Equal(last.Truncate(time.Second)) {
		return humantime.FormatExact(from, a.zone) + " ~ " + humantime.FormatExact(to, a.zone)
	}
	return humantime.FormatSeconds(first, a.zone) + " ~ " + humantime.FormatSeconds(last, a.zone)
}

func size(n int64) string {
	if n == 0 {
		return ""
	}
	return v1alpha1.FormatSize(n)
}

// exact prints a moment to the microsecond.
func (a *app) exact(t time.Time) string { return humantime.FormatExact(t, a.zone) }
