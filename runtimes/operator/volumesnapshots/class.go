// SPDX-License-Identifier: Apache-2.0

package volumesnapshots

import (
	"fmt"
	"slices"
	"strings"
)

// Class is a VolumeSnapshotClass.
type Class struct {
	Name, Driver string
	Default      bool
}

// AnnotationDefault is on the class that is meant where none is named.
const AnnotationDefault = "snapshot.storage.kubernetes.io/is-default-class"

// Choose finds the class for the volumes of a driver: the default one, or the only one.
// Without any the reason says what to do.
func Choose(all []Class, driver string) (class, reason string) {
	var names, defaults []string
	for _, c := range all {
		if c.Driver != driver {
			continue
		}
		names = append(names, c.Name)
		if c.Default {
			defaults = append(defaults, c.Name)
		}
	}
	slices.Sort(names)
	switch {
	case len(defaults) == 1:
		return defaults[0], ""
	case len(names) == 1:
		return names[0], ""
	case len(names) == 0:
		return "", fmt.Sprintf("there is no VolumeSnapshotClass for the driver %s: if the storage can, make one", driver)
	}
	return "", fmt.Sprintf("the driver %s has the VolumeSnapshotClasses %s, and not one of them is the default: set the annotation %s to \"true\" on one",
		driver, strings.Join(names, ", "), AnnotationDefault)
}
