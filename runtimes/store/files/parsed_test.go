// SPDX-License-Identifier: Apache-2.0

package files

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestParsed reads what was read before: nobody has another's object, and an edit that keeps
// size and time of a file is seen.
func TestParsed(t *testing.T) {
	s := open(t)
	newPolicy(t, s, "p")
	first := getPolicy(t, s, "p")
	mine := getPolicy(t, s, "p")
	mine.Spec.ClusterRef = "another"
	mine.Labels = map[string]string{"a": "b"}
	if diff := cmp.Diff(first, getPolicy(t, s, "p")); diff != "" {
		t.Errorf("one who changed an object changed all (-first +now):\n%s", diff)
	}
	info, err := os.Stat(policyFile(s, "p"))
	must(t, err)
	edit(t, policyFile(s, "p"), "my-pg", "my-pq")
	must(t, os.Chtimes(policyFile(s, "p"), time.Time{}, info.ModTime()))
	if got := getPolicy(t, s, "p").Spec.ClusterRef; got != "my-pq" {
		t.Errorf("the edited policy is of %s", got)
	}
	must(t, os.Remove(policyFile(s, "p")))
	newPolicy(t, s, "p")
	if got := getPolicy(t, s, "p"); got.Spec.ClusterRef != "my-pg" || got.UID == first.UID {
		t.Errorf("the new policy is %s of %s", got.UID, got.Spec.ClusterRef)
	}
}

// TestParsedIsBounded keeps no more text than it should.
func TestParsedIsBounded(t *testing.T) {
	c := &parsed{}
	s := open(t)
	r := record{object: newPolicy(t, s, "p")}
	text := []byte(strings.Repeat("x", mostParsed/10))
	for i := range 25 {
		c.keep(fmt.Sprint("f", i), text, r)
		if i%3 == 0 {
			c.forget(fmt.Sprint("f", i))
		}
		sum := 0
		for _, s := range c.texts {
			sum += len(s.text)
		}
		if sum != c.size || sum > mostParsed {
			t.Fatalf("%d bytes are kept, %d counted", sum, c.size)
		}
	}
	if _, ok := c.of("f24", []byte("other")); ok {
		t.Error("another text is known")
	}
	if _, ok := c.of("f23", text); !ok {
		t.Error("a text that was kept is not known")
	}
}
