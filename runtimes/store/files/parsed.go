// SPDX-License-Identifier: Apache-2.0

package files

import (
	"bytes"
	"sync"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// mostParsed is how many bytes of text are kept with what they say.
const mostParsed = 8 << 20

// parsed keeps what the texts of files said: an agent reads all its objects whenever one of
// them changes, as with each step of a backup, and to parse them is nearly all of that. A text
// that is another one, whoever wrote it, is parsed. Many goroutines may use it.
type parsed struct {
	mu    sync.Mutex
	texts map[string]said // by path
	size  int
}

type said struct {
	text   []byte
	record record
}

// of is the record of a text that was parsed before, for the caller alone.
func (c *parsed) of(path string, text []byte) (record, bool) {
	c.mu.Lock()
	s, ok := c.texts[path]
	c.mu.Unlock()
	if !ok || !bytes.Equal(s.text, text) {
		return record{}, false
	}
	return s.record.copied(), true
}

// keep notes what the text of a file says. The text must not be changed afterwards.
func (c *parsed) keep(path string, text []byte, r record) {
	s := said{text, r.copied()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size += len(text) - len(c.texts[path].text)
	if c.size > mostParsed || c.texts == nil {
		c.texts, c.size = map[string]said{}, len(text)
	}
	c.texts[path] = s
}

func (c *parsed) forget(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size -= len(c.texts[path].text)
	delete(c.texts, path)
}

func (r record) copied() record {
	r.object = copied(r.object)
	return r
}

// copied shares nothing with o.
func copied(o v1alpha1.Object) v1alpha1.Object { return o.DeepCopyObject().(v1alpha1.Object) }
