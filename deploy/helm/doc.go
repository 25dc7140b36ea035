// SPDX-License-Identifier: Apache-2.0

// Package helm is the Helm chart kubeblocks, as files inside the program: what
// `kbcli kubeblocks install` installs is always of the same release as kbcli itself.
// The folder is a chart as well: `helm install kubeblocks ./deploy/helm -n kb-system`.
//
//	Chart.yaml, values.yaml, values.schema.json
//	templates/   the operator and what it needs
//	crds/        made from api/v1alpha1 by tools/crds
//
// templates/clusterroles.yaml is made too, from the table of rights in
// runtimes/operator/specs; a test there says when it is stale.
package helm
