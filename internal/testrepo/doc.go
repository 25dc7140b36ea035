// SPDX-License-Identifier: Apache-2.0

// Package testrepo makes repositories for the servers of tests.
//
//	s := testpg.Start(t, testpg.Options{})
//	repo, lineage := testrepo.New(t, mem.New(time.Now), repository.Options{}, testrepo.Info(t, s))
package testrepo
