// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Encode writes o as YAML for people: apiVersion, kind, metadata, spec, status,
// and within them the order of the types. Text that some reader of YAML would
// take for a number, a date or a boolean is quoted. Equal objects give equal
// bytes. Decode reads it back.
func Encode(o Object) ([]byte, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", KindOf(o).Name, o.GetName(), err)
	}
	root, err := nodeOfJSON(b)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", KindOf(o).Name, o.GetName(), err)
	}
	// An object made in Go seldom says what it is.
	version, kind := o.GroupVersionKind().ToAPIVersionAndKind()
	content := []*yaml.Node{textNode("apiVersion"), textNode(version), textNode("kind"), textNode(kind)}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if k := root.Content[i].Value; k != "apiVersion" && k != "kind" {
			content = append(content, root.Content[i], root.Content[i+1])
		}
	}
	root.Content = content

	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	enc.CompactSeqIndent()
	if err := enc.Encode(root); err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", kind, o.GetName(), err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", kind, o.GetName(), err)
	}
	return out.Bytes(), nil
}

// nodeOfJSON makes the tree of valid JSON, in its own order.
func nodeOfJSON(b []byte) (*yaml.Node, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	n, err := nextNode(dec)
	if err != nil {
		return nil, &SyntaxError{Reason: err.Error()}
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, &SyntaxError{Reason: "text follows the object"}
	}
	setLines(n, b)
	return n, nil
}

func nextNode(dec *json.Decoder) (*yaml.Node, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	// The offset stands in for the line until setLines counts them.
	at := int(dec.InputOffset())
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: at}
	switch t := t.(type) {
	case json.Delim:
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
		if t == '[' {
			n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		}
		for dec.More() {
			c, err := nextNode(dec)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, c)
		}
		_, err = dec.Token()
	case string:
		n = textNode(t)
		n.Line = at
	case json.Number:
		n.Value, n.Tag = t.String(), "!!int"
		if strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!float"
		}
	case bool:
		n.Value, n.Tag = strconv.FormatBool(t), "!!bool"
	case nil:
		n.Value, n.Tag = "null", "!!null"
	}
	return n, err
}

// setLines turns offsets, which grow as the tree is walked, into lines.
func setLines(n *yaml.Node, b []byte) {
	line, from := 1, 0
	var walk func(*yaml.Node)
	walk = func(n *yaml.Node) {
		line += bytes.Count(b[from:n.Line], []byte{'\n'})
		from, n.Line = n.Line, line
		for _, c := range n.Content {
			walk(c)
		}
	}
	walk(n)
}

var (
	// Booleans of YAML 1.1, which kubectl and others still read.
	oldBool = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null|~)$`)
	// Numbers, dates and base 60 of YAML 1.1 and 1.2.
	numeric = regexp.MustCompile(`^[-+]?(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0o[0-7_]+|[0-9][0-9_]*(:[0-9][0-9_]*)*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|\.[0-9_]+([eE][-+]?[0-9]+)?|\.(?i:inf|nan))$|^[0-9]{4}-[0-9]`)
)

func textNode(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	// A star needs quotes at the start of a schedule only; all schedules should look alike.
	if s == "" || oldBool.MatchString(s) || numeric.MatchString(s) || strings.ContainsAny(s, "*\n\r\t") {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// jsonOf is the JSON of a tree, for the types that read themselves.
func jsonOf(n *yaml.Node) []byte {
	var b bytes.Buffer
	writeJSON(&b, n)
	return b.Bytes()
}

func writeJSON(b *bytes.Buffer, n *yaml.Node) {
	open, closing := byte('['), byte(']')
	switch n.Kind {
	case yaml.ScalarNode:
		b.Write(scalarJSON(n))
		return
	case yaml.MappingNode:
		open, closing = '{', '}'
	}
	b.WriteByte(open)
	for i, c := range n.Content {
		switch {
		case n.Kind == yaml.MappingNode && i%2 == 1:
			b.WriteByte(':')
		case i > 0:
			b.WriteByte(',')
		}
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			c = textNode(c.Value)
		}
		writeJSON(b, c)
	}
	b.WriteByte(closing)
}

func scalarJSON(n *yaml.Node) []byte {
	switch n.ShortTag() {
	case "!!null":
		return []byte("null")
	case "!!bool":
		return []byte(strings.ToLower(n.Value))
	case "!!int", "!!float":
		if json.Valid([]byte(n.Value)) {
			return []byte(n.Value)
		}
	}
	s, _ := json.Marshal(n.Value) // a string always has a JSON
	return s
}
