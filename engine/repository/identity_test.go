// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"slices"
	"strings"
	"testing"
)

func TestRecipientsOf(t *testing.T) {
	one, oneRecipient := somebody(t)
	two, twoRecipient := somebody(t)
	got, err := RecipientsOf("# made by age-keygen\n" + one + "\n" + two + "\n")
	if err != nil || !slices.Equal(got, []string{oneRecipient, twoRecipient}) {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", "# nothing\n", oneRecipient, one[:40], "AGE-SECRET-KEY-1hunter2"} {
		got, err := RecipientsOf(bad)
		if err == nil {
			t.Errorf("%q gives %q", bad, got)
		} else if len(bad) > 30 && strings.Contains(err.Error(), bad[20:]) {
			t.Errorf("the error holds the text: %v", err)
		}
	}
}
