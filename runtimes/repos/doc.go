// SPDX-License-Identifier: Apache-2.0

// Package repos is the repositories of an installation, the same on every runtime: it
// opens what BackupRepos describe, looks after each, and finds a cluster's past in them.
//
//	BackupRepo ─▶ Set ─▶ repository.Repository       opened once, for whoever asks
//	           ─▶ keeper ─▶ BackupRepo.status        is it there, and is it the same
//	                     ─▶ Backups                  those that came with it, and those that go
//
// A place is a directory, a bucket, or on Kubernetes a volume that a pod serves.
//
// The repository is the truth about backups: one that is named again brings its Backups
// back. A place that held a repository and does not any more gets no new one. Bytes of a
// Backup go before the object does.
package repos
