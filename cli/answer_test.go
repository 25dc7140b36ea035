// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"testing"
	"time"

	"github.com/kbcli/kbcli/runtimes/kubernetes/ask"
)

// TestAnswer: what the command line in a pod says is what the one outside reads.
func TestAnswer(t *testing.T) {
	b := newBench(t)
	b.typed = `{"topic":"clock","source":{"Namespace":"default","Cluster":"my-pg"}}`
	out, errs, code := b.run("answer")
	got, err := ask.Read([]byte(out))
	if code != 0 || errs != "" || err != nil || !got.Now.Equal(pageNow) {
		t.Errorf("%q %q %d: %v, %v", out, errs, code, got.Now.Format(time.RFC3339), err)
	}
	b.typed = "nonsense"
	if out, _, code := b.run("answer"); out != "" || code != exitFailed {
		t.Errorf("%q, code %d", out, code)
	}
}
