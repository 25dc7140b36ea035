// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MaxBytes is how long the text of one object may be. Kubernetes ends near there too.
const MaxBytes = 3 << 20

// Decode reads one object from YAML or JSON. It neither sets defaults nor
// validates.
//
// It is strict. The error is a *SyntaxError when the text is not one document,
// is empty, or uses anchors; else FieldErrors, all of them, with their lines:
// fields that nobody knows, fields given twice, values of another type. Numbers
// and booleans are taken for text where a text is wanted, as they were spelt.
func Decode(text []byte) (Object, error) {
	root, err := parse(text)
	if err != nil {
		return nil, err
	}
	var l FieldErrors
	if root.Kind != yaml.MappingNode {
		l = append(l, FieldError{Type: ErrorInvalid, Reason: "is not an object with apiVersion and kind", Line: root.Line})
		return nil, l
	}
	o := l.object(root)
	if o == nil {
		return nil, l
	}
	d := decoder{errs: &l}
	d.fill(root, reflect.ValueOf(o).Elem(), "")
	if len(l) > 0 {
		return nil, l
	}
	return o, nil
}

// Locate fills the lines of errs from the text that they were found in: a field
// that is not there has the line of the nearest one around it.
func Locate(text []byte, errs FieldErrors) {
	root, err := parse(text)
	if err != nil {
		return
	}
	lines := make(map[string]int)
	locate(root, "", lines)
	for i := range errs {
		for p := errs[i].Path; errs[i].Line == 0; p = p[:strings.LastIndexAny(p, ".[")] {
			errs[i].Line = lines[p]
			if !strings.ContainsAny(p, ".[") {
				break
			}
		}
		if errs[i].Line == 0 {
			errs[i].Line = root.Line
		}
	}
}

func locate(n *yaml.Node, path string, lines map[string]int) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			at := joinPath(path, n.Content[i].Value)
			lines[at] = n.Content[i].Line
			locate(n.Content[i+1], at, lines)
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			lines[at] = c.Line
			locate(c, at, lines)
		}
	}
}

// object makes the empty object that apiVersion and kind ask for.
func (l *FieldErrors) object(root *yaml.Node) Object {
	apiVersion, kind := child(root, "apiVersion"), child(root, "kind")
	for _, f := range []struct {
		name string
		n    *yaml.Node
	}{{"apiVersion", apiVersion}, {"kind", kind}} {
		if f.n == nil || f.n.Value == "" {
			*l = append(*l, FieldError{Type: ErrorRequired, Path: f.name, Reason: "must be given", Line: root.Line})
		}
	}
	if len(*l) > 0 {
		return nil
	}
	var names []string
	for _, k := range kinds {
		names = append(names, k.Name)
		if k.Name != kind.Value {
			continue
		}
		if want := k.Group + "/" + Version; apiVersion.Value != want {
			*l = append(*l, FieldError{
				Type: ErrorInvalid, Path: "apiVersion", Value: apiVersion.Value, Line: apiVersion.Line,
				Reason: fmt.Sprintf("is not that of a %s: %s is", k.Name, want),
			})
			return nil
		}
		return k.New()
	}
	*l = append(*l, FieldError{
		Type: ErrorInvalid, Path: "kind", Value: kind.Value, Line: kind.Line,
		Reason: "is not known" + suggestion(kind.Value, names),
	})
	return nil
}

func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?`)

// parse makes a tree of one document without anchors.
func parse(text []byte) (*yaml.Node, error) {
	if len(text) > MaxBytes {
		return nil, &SyntaxError{Reason: fmt.Sprintf("the text has %d bytes, at most %d are read", len(text), MaxBytes)}
	}
	// YAML holds most of JSON, but not its tabs and not all of its escapes.
	if t := bytes.TrimSpace(text); len(t) > 0 && t[0] == '{' && json.Valid(t) {
		return nodeOfJSON(t)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, next yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, &SyntaxError{Line: 1, Reason: "the text is empty"}
	} else if err != nil {
		return nil, syntaxError(text, err)
	}
	if err := dec.Decode(&next); err == nil && !isEmpty(&next) {
		return nil, &SyntaxError{Line: next.Line, Reason: "a second document begins: one object at a time"}
	} else if err != nil && !errors.Is(err, io.EOF) {
		return nil, syntaxError(text, err)
	}
	if isEmpty(&doc) {
		return nil, &SyntaxError{Line: 1, Reason: "the text is empty"}
	}
	root := doc.Content[0]
	if err := checkTree(root); err != nil {
		return nil, err
	}
	return root, nil
}

func isEmpty(doc *yaml.Node) bool {
	return len(doc.Content) == 0 || isNull(doc.Content[0])
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// syntaxError finds the line by itself: the library's is that of the block
// around the mistake, which can be the whole text. The line is the one after the
// longest beginning of the text that is well formed. The search is quadratic, so
// long texts go without.
func syntaxError(text []byte, err error) error {
	m := yamlLine.FindStringSubmatch(err.Error())
	line, _ := strconv.Atoi(m[1])
	if lines := bytes.SplitAfter(text, []byte{'\n'}); len(lines) <= 300 && len(text) <= 32<<10 {
		after := 1
		for n, end := 0, 0; n < len(lines); n++ {
			end += len(lines[n])
			var doc yaml.Node
			if yaml.Unmarshal(text[:end], &doc) == nil {
				after = n + 2
			}
		}
		if after <= len(lines) { // else the mistake is in a second document
			line = after
		}
	}
	return &SyntaxError{Line: line, Reason: strings.TrimPrefix(err.Error(), m[0])}
}

// checkTree refuses what says one thing and means another.
func checkTree(n *yaml.Node) error {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return &SyntaxError{Line: n.Line, Reason: "anchors and aliases are not taken"}
	case n.Style&yaml.TaggedStyle != 0:
		return &SyntaxError{Line: n.Line, Reason: "tags such as " + n.Tag + " are not taken"}
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && c.Kind != yaml.ScalarNode {
			return &SyntaxError{Line: c.Line, Reason: "a key is not one word"}
		}
		if err := checkTree(c); err != nil {
			return err
		}
	}
	return nil
}

// decoder fills Go values from a tree, as encoding/json would, and remembers
// where it did not work.
type decoder struct{ errs *FieldErrors }

var (
	unmarshalerType = reflect.TypeFor[json.Unmarshaler]()
	examples        = map[reflect.Type]string{
		reflect.TypeFor[resource.Quantity](): "a quantity such as 20Gi or 500m",
		reflect.TypeFor[metav1.Time]():       "a time such as 2023-04-17T11:56:40Z",
		reflect.TypeFor[metav1.Duration]():   "a duration such as 1s or 5m",
		reflect.TypeFor[MicroTime]():         "a time such as 2023-04-17T11:56:40.000000Z",
	}
)

func (d decoder) wrong(n *yaml.Node, path, want string) {
	e := FieldError{Type: ErrorInvalid, Path: path, Reason: "must be " + want, Line: n.Line}
	if n.Kind == yaml.ScalarNode && n.Value != "" {
		e.Value, e.Reason = n.Value, "is not "+want
	}
	*d.errs = append(*d.errs, e)
}

// fill sets v, which is addressable, from n. Null leaves it alone.
func (d decoder) fill(n *yaml.Node, v reflect.Value, path string) {
	if isNull(n) {
		return
	}
	if reflect.PointerTo(v.Type()).Implements(unmarshalerType) {
		if err := json.Unmarshal(jsonOf(n), v.Addr().Interface()); err != nil {
			want, ok := examples[v.Type()]
			if !ok {
				want = "what is wanted here: " + err.Error()
			}
			d.wrong(n, path, want)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.fill(n, v.Elem(), path)
	case reflect.Struct:
		d.fillStruct(n, v, path)
	case reflect.Map:
		d.fillMap(n, v, path)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.wrong(n, path, "a list")
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, c := range n.Content {
			d.fill(c, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	case reflect.String:
		if n.Kind != yaml.ScalarNode {
			d.wrong(n, path, "a text")
			return
		}
		v.SetString(n.Value)
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
			d.wrong(n, path, "true or false")
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case reflect.Int, reflect.Int32, reflect.Int64:
		i, err := strconv.ParseInt(n.Value, 10, v.Type().Bits())
		if err != nil || n.ShortTag() != "!!int" {
			d.wrong(n, path, "a whole number")
			return
		}
		v.SetInt(i)
	default:
		panic(fmt.Sprintf("v1alpha1: field %s has type %v, which Decode does not know", path, v.Type()))
	}
}

func (d decoder) fillStruct(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.wrong(n, path, "a block of fields")
		return
	}
	fields, names := fieldsOf(v.Type())
	d.eachKey(n, path, func(key, value *yaml.Node, at string) {
		index, ok := fields[key.Value]
		if !ok {
			*d.errs = append(*d.errs, FieldError{
				Type: ErrorUnknown, Path: at, Line: key.Line,
				Reason: strings.TrimSuffix(strings.TrimPrefix(suggestion(key.Value, names), " ("), ")"),
			})
			return
		}
		d.fill(value, v.FieldByIndex(index), at)
	})
}

func (d decoder) fillMap(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.wrong(n, path, "a block of names and values")
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(n.Content)/2))
	d.eachKey(n, path, func(key, value *yaml.Node, at string) {
		e := reflect.New(v.Type().Elem()).Elem()
		d.fill(value, e, at)
		v.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), e)
	})
}

// eachKey calls f for every key that is there for the first time.
func (d decoder) eachKey(n *yaml.Node, path string, f func(key, value *yaml.Node, at string)) {
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		at := joinPath(path, key.Value)
		if seen[key.Value] {
			*d.errs = append(*d.errs, FieldError{Type: ErrorDuplicate, Path: at, Line: key.Line})
			continue
		}
		seen[key.Value] = true
		f(key, n.Content[i+1], at)
	}
}

// fieldsOf maps the names in JSON to fields, and lists them in order.
func fieldsOf(t reflect.Type) (map[string][]int, []string) {
	fields, names := make(map[string][]int), []string(nil)
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "" || name == "-" {
			continue
		}
		// What is embedded under a name of its own is not part of this level.
		if inline(t, f.Index) {
			fields[name] = f.Index
			names = append(names, name)
		}
	}
	return fields, names
}

func inline(t reflect.Type, index []int) bool {
	for i := 1; i < len(index); i++ {
		name, _, _ := strings.Cut(t.FieldByIndex(index[:i]).Tag.Get("json"), ",")
		if name != "" {
			return false
		}
	}
	return true
}

var plainKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// joinPath is "spec.ttl", and `metadata.labels["a.b/c"]` where a dot would mislead.
func joinPath(path, key string) string {
	switch {
	case !plainKey.MatchString(key):
		return path + "[" + strconv.Quote(key) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}
