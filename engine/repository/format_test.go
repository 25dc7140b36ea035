// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob/mem"
)

var update = flag.Bool("update", false, "make the repositories in testdata anew; those of released formats must stay")

// What is in testdata/format1: two repositories as kbcli of format 1 left them, each
// object a file, and in NAME.json what they hold. sealed.identity opens the second.
const formatDir = "testdata/format1"

type described struct {
	Repository string
	Lineage    string
	Objects    []string          // their keys
	Content    map[string]string // by key, and for packs by what was read
}

func makeFormat(t *testing.T, name string, o Options) {
	t.Helper()
	s := mem.New(nil)
	r := create(t, s, o)
	l, objects := fill(t, r)
	d := described{Repository: r.ID(), Lineage: l.Info().ID, Content: read(t, r, objects)}
	root := filepath.Join(formatDir, name)
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	for info, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		d.Objects = append(d.Objects, info.Key)
		path := filepath.Join(root, info.Key)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, raw(t, s, info.Key), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+".json", append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// read reads every object.
func read(t *testing.T, r *Repository, objects []object) map[string]string {
	t.Helper()
	content := map[string]string{}
	for _, ob := range objects {
		got, err := ob.read(t.Context(), r)
		if err != nil {
			t.Fatalf("%s: %v", ob.key, err)
		}
		if ob.kind == KindSegment {
			if !bytes.Equal([]byte(got), quiet(9)) {
				t.Errorf("%s holds another segment", ob.key)
			}
			got = "quiet"
		}
		if ob.kind == KindTail {
			if !bytes.Equal([]byte(got), quiet(8)[:8192]) {
				t.Errorf("%s holds another tail", ob.key)
			}
			got = "quiet"
		}
		content[ob.key] += got
	}
	return content
}

func TestFormat1(t *testing.T) {
	for _, name := range []string{"plain", "sealed"} {
		t.Run(name, func(t *testing.T) {
			var o Options
			idFile := filepath.Join(formatDir, name+".identity")
			if name == "sealed" {
				if *update {
					id, to := somebody(t)
					if err := os.MkdirAll(formatDir, 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(idFile, []byte("# for this test alone\n"+id+"\n"), 0o644); err != nil {
						t.Fatal(err)
					}
					o.Recipients = []string{to}
				}
				id, err := os.ReadFile(idFile)
				if err != nil {
					t.Fatal(err)
				}
				o.Identities = string(id)
			}
			if *update {
				makeFormat(t, name, o)
			}
			testFormat(t, name, o)
		})
	}
}

func testFormat(t *testing.T, name string, o Options) {
	b, err := os.ReadFile(filepath.Join(formatDir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var want described
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	s := mem.New(nil)
	for _, key := range want.Objects {
		b, err := os.ReadFile(filepath.Join(formatDir, name, key))
		if err != nil {
			t.Fatal(err)
		}
		replace(t, s, key, b)
	}
	o.Clock = testClock
	r, err := Open(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	ls, err := r.Lineages(t.Context())
	if err != nil || len(ls) != 1 || ls[0].Info().ID != want.Lineage || r.ID() != want.Repository {
		t.Fatalf("%s, %d lineages, %v", r.ID(), len(ls), err)
	}
	objects := objectsIn(t, ls[0])
	if diff := cmp.Diff(want.Content, read(t, r, objects)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var keys []string
	for _, ob := range objects {
		if !slices.Contains(keys, ob.key) {
			keys = append(keys, ob.key)
		}
	}
	slices.Sort(keys)
	if diff := cmp.Diff(want.Objects, keys); diff != "" {
		t.Errorf("objects that are not read (-there +read):\n%s", diff)
	}
	// and it can be gone on with
	if err := putTail(ls[0], tailSegment, 8192, 9000, quiet(8)); err != nil {
		t.Error(err)
	}
	putSegment(t, ls[0], wholeSegment, quiet(9))
}
