// SPDX-License-Identifier: Apache-2.0

package snapshots

import (
	"embed"
	"io/fs"
)

//go:embed crds
var files embed.FS

// Definitions are the texts of the definitions, by file name.
func Definitions() (map[string][]byte, error) {
	names, err := fs.Glob(files, "crds/*.yaml")
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, name := range names {
		if out[name], err = files.ReadFile(name); err != nil {
			return nil, err
		}
	}
	return out, nil
}
