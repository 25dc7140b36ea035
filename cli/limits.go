// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// limiting is what the flags say that some work may take of the machine.
type limiting struct {
	memory, rate  string
	workers, nice int32
	idleIO        bool
}

// flags adds the flags. way is upload or download.
func (o *limiting) flags(c *cobra.Command, way string) {
	f := c.Flags()
	f.StringVar(&o.memory, "memory", "", "the memory that it may take, such as 128Mi (default 256Mi, or what the container leaves)")
	f.StringVar(&o.rate, way, "", "how many bytes a second it may "+way+", such as 20Mi (default no limit)")
	f.Int32Var(&o.workers, "workers", 0, "how many threads work at once (default one for each core)")
	f.Int32Var(&o.nice, "nice", 0, "how far it stands back for others that want the processor, 1 to 19, as in nice(1)")
	f.BoolVar(&o.idleIO, "idle-io", false, "leave the disk to others as long as they want it, as ionice -c 3 does")
}

// spec reads the flags; nil if nothing is limited.
func (o *limiting) spec(way string) (*v1alpha1.LimitsSpec, error) {
	s := &v1alpha1.LimitsSpec{Workers: o.workers, Nice: o.nice, IdleIO: o.idleIO}
	rate := &s.Upload
	if way == "download" {
		rate = &s.Download
	}
	for _, q := range []struct {
		flag, text string
		to         *resource.Quantity
	}{{"memory", o.memory, &s.Memory}, {way, o.rate, rate}} {
		if q.text == "" {
			continue
		}
		v, err := resource.ParseQuantity(q.text)
		if err != nil || v.Sign() <= 0 {
			return nil, usage("--%s: %q is not a number of bytes such as 128Mi", q.flag, q.text)
		}
		*q.to = v
	}
	switch {
	case o.nice < 0 || o.nice > 19:
		return nil, usage("--nice: %d is not a number from 1 to 19", o.nice)
	case o.workers < 0 || o.workers > 1024:
		return nil, usage("--workers: %d is not a number from 1 to 1024", o.workers)
	case s.IsZero():
		return nil, nil
	}
	return s, nil
}

// limitWords are limits in a line; empty if there are none.
func limitWords(s *v1alpha1.LimitsSpec) string {
	if s.IsZero() {
		return ""
	}
	var out []string
	for _, q := range []struct {
		q    *resource.Quantity
		what string
	}{{&s.Memory, "memory %s"}, {&s.Upload, "upload %s/s"}, {&s.Download, "download %s/s"}} {
		if !q.q.IsZero() {
			out = append(out, fmt.Sprintf(q.what, q.q.String()))
		}
	}
	if s.Workers > 0 {
		out = append(out, fmt.Sprintf("workers %d", s.Workers))
	}
	if s.Nice > 0 {
		out = append(out, fmt.Sprintf("nice %d", s.Nice))
	}
	if s.IdleIO {
		out = append(out, "idle I/O")
	}
	return strings.Join(out, ", ")
}
