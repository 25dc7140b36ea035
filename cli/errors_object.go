// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

// sayInvalid is said of an object that cannot be. A name that cannot be comes with one
// that could.
func sayInvalid(err error) (saying, bool) {
	s := saying{words: err.Error(), code: exitUsage}
	var l v1alpha1.FieldErrors
	if errors.As(err, &l) {
		for _, e := range l {
			if e.Path == "metadata.name" || e.Path == "metadata.namespace" {
				s.hint = fmt.Sprintf("a name that would do: %q", goodName(e.Value))
			}
		}
	}
	return s, apierrors.IsInvalid(err)
}

// shortName is how long a name is that is proposed. Every kind takes as much.
const shortName = v1alpha1.MaxClusterName

// goodName is like what somebody typed, and can be the name of anything.
func goodName(typed string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, typed)
	parts := slices.DeleteFunc(strings.Split(name, "-"), func(p string) bool { return p == "" })
	name = strings.Join(parts, "-")
	if name != "" && name[0] <= '9' {
		name = "pg-" + name
	}
	if name = strings.TrimRight(name[:min(len(name), shortName)], "-"); name == "" || name == typed {
		return "my-pg"
	}
	return name
}

// sayBroken is said of a file of an object that was edited by hand into something that
// cannot be, or was cut short.
func sayBroken(e *store.BrokenObject, err error) saying {
	s := saying{words: err.Error(), code: exitFailed}
	var syntax *v1alpha1.SyntaxError
	var fields v1alpha1.FieldErrors
	switch {
	case !filepath.IsAbs(e.Place): // it is in an API server
		s.hint = "nothing was changed: servers run on, and their WAL is archived as before\n" +
			"another release of kbcli may have written it, or somebody without kbcli"
		s.next = "kubectl edit " + resourceWord(e.Key)
	case errors.As(e.Err, &syntax), errors.As(e.Err, &fields):
		s.hint = "nothing was changed: servers run on, and their WAL is archived as before\n" +
			"mend the file in an editor, from a copy if a part is missing: it is read again as soon as it is saved"
		s.next = "${EDITOR:-vi} " + e.Place
	default:
		s.hint = "nothing was changed: servers run on, and their WAL is archived as before"
		s.next = "ls -l " + e.Place
	}
	return s
}

// resourceWord names an object for kubectl.
func resourceWord(key store.Key) string {
	word := key.Kind
	if k, ok := v1alpha1.LookupKind(key.Kind); ok {
		word = k.Resource()
	}
	word += "/" + key.Name
	if key.Namespace != "" {
		word += " -n " + key.Namespace
	}
	return word
}
