// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"strings"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/operator/room"
)

func useOf(p *core.Pod) room.Use { return room.Parse(p.Annotations[room.Annotation]) }

// room says which volumes are full or soon will be, in a word and a sentence with what to
// do about it; empty while all have room.
func (s *seen) room() (reason, words string) {
	var all []string
	worst := room.Plenty
	for i := range s.pods {
		u := useOf(&s.pods[i])
		level := u.Level()
		if level == room.Plenty {
			continue
		}
		worst = max(worst, level)
		all = append(all, fmt.Sprintf("the volume of %s is %d %% full, %s of %s are free", s.pods[i].Name, u.Percent(),
			v1alpha1.FormatSize(u.Free), v1alpha1.FormatSize(u.Size)))
	}
	if worst == room.Plenty {
		return "", ""
	}
	reason = "VolumeAlmostFull"
	if worst == room.Full {
		reason = "VolumeFull"
		all = append(all, "PostgreSQL stops when it finds no room for its WAL")
	}
	return reason, strings.Join(all, "; ") + "; next: " + s.enlarge()
}

// enlarge is the command that gives each volume twice the room.
func (s *seen) enlarge() string {
	more := resource.NewQuantity(2*s.cluster.Spec.Storage.Value(), resource.BinarySI)
	return fmt.Sprintf(`kubectl -n %s patch clusters.apps.kubeblocks.io %s --type=merge -p '{"spec":{"storage":"%s"}}'`, s.cluster.Namespace, s.cluster.Name, more)
}
