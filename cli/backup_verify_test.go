// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"testing"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
)

// Verify says of a backup what its name tells.
func (f *fakeRuntime) Verify(_ context.Context, b *v1alpha1.Backup, progress func(done, total int64)) (*restore.Report, error) {
	progress(1, 2)
	r := &restore.Report{Backup: b.Name, Files: 968, Bytes: 31 << 20, Packs: 2, Segments: 1}
	switch b.Name {
	case "b-broken":
		return r, &restore.DamagedError{Backup: b.Name, Damage: []error{
			&repository.CorruptError{Key: "lineages/x/backup/b-broken/pack/00000001", Reason: "the checksum of its body does not match"},
			errors.Join(errors.New("pack 2 of backup b-broken is missing")),
		}}
	case "b-away":
		return nil, blob.ErrUnreachable
	case "b-pages":
		r.BadPages = []repository.BadPage{{Path: "base/5/1259", Block: 3}, {Path: "base/5/1259", Block: 4}}
	}
	return r, nil
}

func TestVerifyBackup(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"b-whole", "b-broken", "b-away", "b-pages"} {
		b.backup(name, "my-pg", v1alpha1.BackupStatus{Phase: v1alpha1.BackupCompleted})
	}
	b.backup("b-early", "my-pg", v1alpha1.BackupStatus{Phase: v1alpha1.BackupInProgress})
	const read = "Files:          968\nBytes:          32505856 (32.5 MB)\nPacks:          2\nWAL Segments:   1\n"
	for _, c := range []struct {
		name, stdout, stderr string
		code                 int
	}{
		{"b-whole", read + "Bad Pages:      none\nBackup b-whole verified\n", "", 0},
		{
			"b-pages", read + "Bad Pages:      block 3 of base/5/1259, block 4 of base/5/1259\nBackup b-pages verified\n",
			"warning: 2 pages had wrong checksums on the server when the backup was taken: the backup holds them as they were\n", 3,
		},
		{"b-broken", "", "error: backup b-broken is damaged:\n" +
			"\tobject lineages/x/backup/b-broken/pack/00000001 is damaged: the checksum of its body does not match\n" +
			"\tpack 2 of backup b-broken is missing\nhint: take another backup\n", 22},
		{"b-away", "", "error: storage is unreachable\nnext: kbcli backuprepo list\n", 31},
		{"b-early", "", "error: backup \"b-early\" is not completed.\n", 5},
		{"none", "", "Error from server (NotFound): backups.dataprotection.kubeblocks.io \"none\" not found\n", 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			b.want(c.stdout, c.stderr, c.code, "cluster", "verify-backup", c.name)
		})
	}
}
