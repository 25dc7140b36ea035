// SPDX-License-Identifier: Apache-2.0

package helm

import (
	"embed"
	"io/fs"
)

//go:embed Chart.yaml values.yaml values.schema.json .helmignore all:templates crds
var files embed.FS

// Files is the chart: each path is relative to its root.
func Files() fs.FS { return files }
