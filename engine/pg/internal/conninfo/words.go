// SPDX-License-Identifier: Apache-2.0

package conninfo

import (
	"errors"
	"net/url"
	"strings"
)

// With is a connection string with some keywords set, in place of those it has. It
// takes libpq's keywords or its URI and gives keywords: more can be appended to it.
func With(info string, set ...[2]string) (string, error) {
	words, err := parse(info)
	if err != nil {
		return "", err
	}
	for _, s := range set {
		words = put(words, s[0], s[1])
	}
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(w[0] + "=" + quote(w[1]))
	}
	return b.String(), nil
}

// Get is the value of a keyword, and whether the string itself has it.
func Get(info, keyword string) (string, bool) {
	words, err := parse(info)
	if err != nil {
		return "", false
	}
	for _, w := range words {
		if w[0] == keyword {
			return w[1], true
		}
	}
	return "", false
}

var errSyntax = errors.New("connection string is not valid")

func put(words [][2]string, key, value string) [][2]string {
	for i := range words {
		if words[i][0] == key {
			words[i][1] = value
			return words
		}
	}
	return append(words, [2]string{key, value})
}

func quote(v string) string {
	if v != "" && !strings.ContainsAny(v, " \t\n\r\v\f'\\") {
		return v
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}

// parse gives keywords and values in order; of one that is there twice the last holds.
func parse(info string) ([][2]string, error) {
	if strings.HasPrefix(info, "postgres://") || strings.HasPrefix(info, "postgresql://") {
		return parseURI(info)
	}
	const space = " \t\n\r\v\f"
	var words [][2]string
	rest := strings.Trim(info, space)
	for rest != "" {
		key, after, ok := strings.Cut(rest, "=")
		key = strings.Trim(key, space)
		if !ok || key == "" || strings.ContainsAny(key, space) {
			return nil, errSyntax
		}
		value, left, ok := cutValue(strings.TrimLeft(after, space))
		if !ok {
			return nil, errSyntax
		}
		words, rest = put(words, key, value), strings.TrimLeft(left, space)
	}
	return words, nil
}

// cutValue takes a value, quoted or not, from the front.
func cutValue(s string) (value, rest string, ok bool) {
	quoted := strings.HasPrefix(s, "'")
	i := 0
	if quoted {
		i = 1
	}
	var b strings.Builder
	for ; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case quoted && c == '\'':
			return b.String(), s[i+1:], true
		case !quoted && strings.IndexByte(" \t\n\r\v\f", c) >= 0:
			return b.String(), s[i:], true
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), "", !quoted
}

// parseURI reads a URI as libpq does: a host may be a percent-encoded path. One with
// several hosts is refused.
func parseURI(info string) ([][2]string, error) {
	_, rest, _ := strings.Cut(info, "://")
	rest, query, _ := strings.Cut(rest, "?")
	authority, dbname, _ := strings.Cut(rest, "/")
	user, password := "", ""
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, password, _ = strings.Cut(authority[:at], ":")
		authority = authority[at+1:]
	}
	host, port := authority, ""
	if colon := strings.LastIndexByte(authority, ':'); colon > strings.LastIndexByte(authority, ']') {
		host, port = authority[:colon], authority[colon+1:]
	}
	if strings.HasPrefix(host, "[") != strings.HasSuffix(host, "]") || strings.Contains(authority, ",") {
		return nil, errSyntax
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	var words [][2]string
	add := func(key, value string) error {
		key, kerr := url.PathUnescape(key)
		value, verr := url.PathUnescape(value)
		if kerr != nil || verr != nil || key == "" || strings.ContainsAny(key, "= \t\n\r\v\f") {
			return errSyntax
		}
		if value != "" {
			words = put(words, key, value)
		}
		return nil
	}
	given := [][2]string{{"host", host}, {"port", port}, {"user", user}, {"password", password}, {"dbname", dbname}}
	if query != "" {
		for pair := range strings.SplitSeq(query, "&") {
			key, value, _ := strings.Cut(pair, "=")
			given = append(given, [2]string{key, value})
		}
	}
	for _, g := range given {
		if err := add(g[0], g[1]); err != nil {
			return nil, err
		}
	}
	return words, nil
}
