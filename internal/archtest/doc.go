// SPDX-License-Identifier: Apache-2.0

// Package archtest keeps the shape of the module: its test fails on the first
// import that goes the wrong way round, and on a few habits that erode unseen.
//
// Imports go from right to left only:
//
//	engine/pg ← engine/blob ← engine/repository
//	          ← engine/{archive, basebackup, catalog}
//	          ← engine/{retention, restore, checkup}
//	          ← runtimes ← {cli, web} ← cmd
//
// Rooms inside one pair of braces do not import each other. Beside that line
// stand
//
//   - api and deploy, which import nothing of the line and are imported by
//     runtimes, cli, web and cmd;
//   - internal, which knows nothing of the line and which everybody may import,
//     except that internal/test… is for tests, e2e and bench, and may itself use
//     engine/pg, engine/blob and engine/repository;
//   - e2e and bench, which import anything and are imported by nobody.
//
// A folder that stands nowhere fails as well, so that a new one is placed on
// purpose. Test files keep the same order.
//
// The rest: engine must not end the process, print, read the environment or the
// clock, or know flags, Kubernetes or the api; client-go and what is built upon it is for
// runtimes/store/kube, runtimes/kubernetes, runtimes/operator and
// cli/runtime_kubernetes.go; each package has one comment, in
// doc.go; each file begins with the SPDX line and ends before line 600; a
// package has at most 60 exported names (the api may have more), and more than 40
// are remarked upon; no test skips; go.mod and DEPENDENCIES.md name the same modules.
//
// The checker works on source text alone, so it runs on trees that do not
// build, and its own test feeds it small wrong trees from testdata: each rule is
// seen to fail.
package archtest
