// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// number is n, or nothing for zero.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// count is "1 relation", "2 relations".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func labels(o v1alpha1.Object) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(o.GetLabels())) {
		out = append(out, k+"="+o.GetLabels()[k])
	}
	return strings.Join(out, ",")
}
