// SPDX-License-Identifier: Apache-2.0

package files

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/atomicfile"
	"github.com/kbcli/kbcli/runtimes/store"
)

const (
	headText = "# Written by kbcli, spec %016x. Edits are seen at once; comments are not kept; the last line stays \"...\".\n"
	tail     = "...\n"
)

var headForm = regexp.MustCompile(`^# Written by kbcli(?:, spec ([0-9a-f]{16})\.)?`)

// record is one file that was read.
type record struct {
	object v1alpha1.Object
	count  uint64 // of changes, as the file says
	whole  bool   // the text alone says all of it
}

// read is NotFound, a *store.BrokenObject, or the object with its defaults set.
func (p place) read() (record, error) {
	text, err := os.ReadFile(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, store.NotFound(p.kind, p.key.Name)
	}
	if err != nil {
		return record{}, &store.BrokenObject{Key: p.key, Place: p.path, Err: errors.Unwrap(err)}
	}
	return p.parse(text)
}

// parse is read without the reading. The text must not be changed afterwards.
func (p place) parse(text []byte) (record, error) {
	if r, ok := p.parsed.of(p.path, text); ok {
		return r, nil
	}
	r, err := p.decode(text)
	if err == nil {
		if r.whole {
			p.parsed.keep(p.path, text, r)
		}
		return r, nil
	}
	b := &store.BrokenObject{Key: p.key, Place: p.path, Err: err}
	var syntax *v1alpha1.SyntaxError
	var fields v1alpha1.FieldErrors
	switch {
	case errors.As(err, &syntax):
		b.Line = syntax.Line
	case errors.As(err, &fields):
		if fields[0].Line == 0 {
			v1alpha1.Locate(text, fields)
		}
		b.Line = fields[0].Line
	}
	return record{}, b
}

func (p place) decode(text []byte) (record, error) {
	head := headForm.FindSubmatch(text)
	if head != nil && !bytes.HasSuffix(bytes.TrimSpace(text), []byte("\n"+tail[:3])) {
		return record{}, &v1alpha1.SyntaxError{Line: 1 + bytes.Count(bytes.TrimSpace(text), []byte{'\n'}), Reason: `the text ends before its last line, "..."`}
	}
	o, err := v1alpha1.Decode(text)
	if err != nil {
		return record{}, err
	}
	hash, err := hashSpec(o)
	if err != nil {
		return record{}, err
	}
	return p.record(o, text, head != nil && string(head[1]) == fmt.Sprintf("%016x", hash))
}

// record is what text says, which is o. Untouched is a spec that kbcli wrote.
func (p place) record(o v1alpha1.Object, text []byte, untouched bool) (record, error) {
	if o.GroupVersionKind() != p.kind.GroupVersionKind() {
		return record{}, v1alpha1.FieldErrors{{Type: v1alpha1.ErrorInvalid, Path: "kind", Value: o.GroupVersionKind().Kind, Reason: "is not that of its directory, " + p.kind.Plural}}
	}
	if !untouched {
		o.SetGeneration(o.GetGeneration() + 1)
	}
	if o.GetNamespace() == "" {
		o.SetNamespace(p.key.Namespace)
	}
	if o.GetName() == "" {
		o.SetName(p.key.Name)
	}
	if o.GetName() != p.key.Name || o.GetNamespace() != p.key.Namespace {
		return record{}, v1alpha1.FieldErrors{{
			Type: v1alpha1.ErrorInvalid, Path: "metadata.name", Value: strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/"),
			Reason: "is not that of its file, " + strings.TrimPrefix(p.key.Namespace+"/"+p.key.Name, "/"),
		}}
	}
	o.SetDefaults()
	if err := o.Validate(); err != nil {
		return record{}, err
	}
	if o.GetUID() == "" {
		// The same at every reading, until a change writes it down.
		o.SetUID(types.UID(uuid.NewSHA1(uuid.NameSpaceOID, []byte(p.key.String())).String()))
	}
	created := o.GetCreationTimestamp()
	if created.IsZero() {
		if info, err := os.Stat(p.path); err == nil {
			o.SetCreationTimestamp(metav1.NewTime(info.ModTime().UTC().Truncate(1e9)))
		}
	}
	r := record{object: o, whole: !created.IsZero()}
	digits, _, _ := strings.Cut(o.GetResourceVersion(), "-")
	r.count, _ = strconv.ParseUint(digits, 10, 64) // what is no number counts from the start
	o.SetResourceVersion(resourceVersion(r.count, text))
	return r, nil
}

// resourceVersion counts changes by kbcli and tells apart those by hand.
func resourceVersion(count uint64, text []byte) string {
	return fmt.Sprintf("%d-%08x", count, uint32(xxhash.Sum64(text)))
}

func hashSpec(o v1alpha1.Object) (uint64, error) {
	b, err := json.Marshal(v1alpha1.SpecOf(o))
	return xxhash.Sum64(b), err
}

// write stores next as the count-th change and makes o what is stored.
func (p place) write(o, next v1alpha1.Object, count uint64) error {
	next.SetResourceVersion(strconv.FormatUint(count, 10))
	body, err := v1alpha1.Encode(next)
	if err != nil {
		return err
	}
	// The hash is of what will be read, which a quantity may spell another way.
	back, err := v1alpha1.Decode(body)
	if err != nil {
		return fmt.Errorf("write %v: %w", p.key, err)
	}
	hash, err := hashSpec(back)
	if err != nil {
		return fmt.Errorf("write %v: %w", p.key, err)
	}
	text := append(fmt.Appendf(nil, headText, hash), body...)
	text = append(text, tail...)
	r, err := p.record(back, text, true)
	if err != nil {
		return fmt.Errorf("write %v: %w", p.key, err)
	}
	if err := makeDir(filepath.Dir(p.path), 0o755); err != nil {
		return fmt.Errorf("write %v: %w", p.key, err)
	}
	if err := atomicfile.Write(p.path, text, 0o644); err != nil {
		return err
	}
	p.parsed.keep(p.path, text, r)
	v1alpha1.Assign(o, r.object)
	return nil
}

// makeDir is os.MkdirAll whose directories survive a power cut and have the
// mode whatever the umask is.
func makeDir(dir string, mode os.FileMode) error {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeDir(filepath.Dir(dir), mode); err != nil {
		return err
	}
	if err := os.Mkdir(dir, mode); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	if err := os.Chmod(dir, mode); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(dir))
}
