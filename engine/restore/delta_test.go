// SPDX-License-Identifier: Apache-2.0

package restore_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	blobfs "github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/testpg"
)

var mapLine = regexp.MustCompile(`(?m)^.*("tablespace_map"|"Manifest-Checksum").*$`)

// tree is what is in directories, links not followed.
func tree(t *testing.T, into restore.Into) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, top := range []string{into.DataDirectory, into.Tablespaces} {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && path == top {
				return nil
			}
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			st := info.Sys().(*syscall.Stat_t)
			text := fmt.Sprintf("%s %d:%d", info.Mode(), st.Uid, st.Gid)
			rel := filepath.Base(top) + strings.TrimPrefix(path, top)
			switch {
			case d.Type().IsRegular():
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				written := false
				switch rel {
				case "data/backup_label":
					written = true
				case "data/tablespace_map": // it names the directory
					b, written = bytes.ReplaceAll(b, []byte(into.Tablespaces), []byte("TABLESPACES")), true
				case "data/backup_manifest": // and this has its checksum
					b, written = mapLine.ReplaceAll(b, nil), true
				}
				text += fmt.Sprintf(" %d %x", len(b), sha256.Sum256(b))
				if !written {
					text += " " + info.ModTime().UTC().Format(time.RFC3339Nano)
				}
			case d.Type()&fs.ModeSymlink != 0:
				to, err := os.Readlink(path)
				if err != nil {
					return err
				}
				text += " -> " + strings.Replace(to, into.Tablespaces, "TABLESPACES", 1)
			}
			out[rel] = text
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func sameTrees(t *testing.T, got, want map[string]string) {
	t.Helper()
	bad := 0
	names := maps.Clone(want)
	maps.Copy(names, got)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if got[name] != want[name] {
			if bad++; bad < 10 {
				t.Errorf("%s:\n got %q\nwant %q", name, got[name], want[name])
			}
		}
	}
	if bad > 9 {
		t.Errorf("%d files differ", bad)
	}
}

// spoil changes a directory at random, and gives how many bytes of files that may cost.
func spoil(t *testing.T, rnd *rand.Rand, dir, outside string) (changed int64) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.HasSuffix(path, "pg_control") {
			files = append(files, path)
		}
		return err
	})
	must(err)
	size := func(path string) int64 {
		info, err := os.Stat(path)
		must(err)
		return info.Size()
	}
	for range 12 {
		path := files[rnd.IntN(len(files))]
		// what was made a link or a directory before is left so
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() || info.Sys().(*syscall.Stat_t).Nlink > 1 {
			continue
		}
		n := size(path)
		what := rnd.IntN(9)
		if what != 5 {
			changed += n
		}
		switch what {
		case 0, 1: // a bit of one page
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			must(err)
			if n > 0 {
				b, at := make([]byte, 1), rnd.Int64N(n)
				_, err = f.ReadAt(b, at)
				must(err)
				b[0] ^= 1
				_, err = f.WriteAt(b, at)
				must(err)
			}
			must(f.Close())
			must(os.Chtimes(path, time.Now(), time.UnixMicro(1700000000000000)))
		case 2:
			must(os.Truncate(path, n/2))
		case 3:
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			must(err)
			_, err = f.Write(bytes.Repeat([]byte{7}, 1+rnd.IntN(50000)))
			must(err)
			must(f.Close())
		case 4:
			must(os.Remove(path))
		case 5: // time, mode and owner alone
			must(os.Chmod(path, 0o666))
			must(os.Chown(path, 0, 0))
			must(os.Chtimes(path, time.Now(), time.Now()))
		case 6: // a link to something outside, which is to stay as it is
			must(os.Remove(path))
			must(os.Symlink(outside, path))
		case 7: // a directory with something in it
			must(os.Remove(path))
			must(os.MkdirAll(filepath.Join(path, "x"), 0o700))
			must(os.WriteFile(filepath.Join(path, "x", "y"), []byte("z"), 0o600))
		case 8: // another name of a file elsewhere
			must(os.Remove(path))
			must(os.Link(outside, path))
		}
	}
	strays := []string{"stray"}
	if _, err := os.Stat(filepath.Join(dir, "global")); err == nil {
		strays = []string{"standby.signal", "base/999", "pg_wal/000000010000000000000042", "pg_wal/archive_status/x.ready", "global/99999"}
		must(os.RemoveAll(filepath.Join(dir, "pg_subtrans")))
		must(os.Chmod(filepath.Join(dir, "base"), 0o755))
	}
	for _, name := range strays {
		must(os.WriteFile(filepath.Join(dir, name), []byte("stray"), 0o600))
	}
	return changed
}

// deltaRig is a server with tablespaces, a backup of it and a fresh restore of that.
func deltaRig(t *testing.T, options repository.Options) (r *rig, repo string) {
	t.Helper()
	server := testpg.Start(t, testpg.Options{Settings: map[string]string{"autovacuum": "off"}})
	repo = filepath.Join(t.TempDir(), "repo")
	store, err := blobfs.Create(repo)
	if err != nil {
		t.Fatal(err)
	}
	r = newRigWith(t, server, store, options)
	space := serverDir(t)
	server.Exec(t, "create tablespace s location '"+space+"'")
	server.Exec(t, "create table t as select i, md5(i::text) || md5((i*7)::text) as v from generate_series(1, 200000) i")
	server.Exec(t, "create table u tablespace s as select i, md5((i+1)::text) as v from generate_series(1, 50000) i")
	server.Exec(t, "vacuum")
	r.startArchiving(t)
	return r, repo
}

func planOf(t *testing.T, r *rig, backup string) *restore.Plan {
	t.Helper()
	p, err := restore.MakePlan(t.Context(), r.catalog(t), catalog.Target{Backup: backup})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func copyTrees(t *testing.T, from, to restore.Into) {
	t.Helper()
	for _, d := range [][2]string{{from.DataDirectory, to.DataDirectory}, {from.Tablespaces, to.Tablespaces}} {
		if out, err := exec.Command("cp", "-a", d[0], d[1]).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
}

// TestDelta: whatever happened to a directory, it becomes what a fresh restore gives, and
// no more is fetched and written than what was changed.
func TestDelta(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string]repository.Options{
		"plain":  {},
		"sealed": {Recipients: []string{id.Recipient().String()}, Identities: id.String()},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := deltaRig(t, options)
			r.backup(t, "b1")
			p := planOf(t, r, "b1")
			fresh, _ := r.place(t)
			if err := p.Fetch(t.Context(), fresh); err != nil {
				t.Fatal(err)
			}
			want := tree(t, fresh)
			outside := filepath.Join(t.TempDir(), "outside")
			if err := os.WriteFile(outside, []byte("untouched"), 0o644); err != nil {
				t.Fatal(err)
			}
			into, recovery := r.place(t)
			copyTrees(t, fresh, into)

			into.Delta = &restore.Delta{}
			if err := p.Fetch(t.Context(), into); err != nil {
				t.Fatal(err)
			}
			sameTrees(t, tree(t, into), want)
			if d := into.Delta; d.Written > 64<<10 || d.Fetched > 2*repository.FrameSize || d.Kept < p.BackupBytes-64<<10 {
				t.Errorf("of what is right already: %+v", *d)
			}
			for seed := range uint64(6) {
				rnd := rand.New(rand.NewPCG(seed, 1))
				changed := spoil(t, rnd, into.DataDirectory, outside)
				changed += spoil(t, rnd, into.Tablespaces, outside)
				into.Delta = &restore.Delta{}
				if err := p.Fetch(t.Context(), into); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				d := *into.Delta
				t.Logf("seed %d: files of %d bytes were changed: %+v", seed, changed, d)
				sameTrees(t, tree(t, into), want)
				if t.Failed() {
					t.Fatalf("with seed %d", seed)
				}
				// a small file shares its frame with others of a mebibyte
				if d.Written > changed+64<<10 || d.Fetched > changed+26*repository.FrameSize || d.Kept+d.Written < p.BackupBytes {
					t.Errorf("seed %d: of %d bytes changed and %d in all: %+v", seed, changed, p.BackupBytes, d)
				}
				if b, err := os.ReadFile(outside); err != nil || string(b) != "untouched" {
					t.Fatalf("the file outside: %q %v", b, err)
				}
			}
			// and it is a server
			recovery.Into = into
			if _, err := p.Recover(t.Context(), recovery); err != nil {
				t.Fatal(err)
			}
			s := testpg.StartAt(t, into.DataDirectory, testpg.Options{Major: r.server.Major})
			var n int
			s.QueryRow(t, "select count(*) from t join u using (i)", &n)
			if n != 50000 {
				t.Errorf("%d rows", n)
			}
			var no *restore.NotReusableError
			if err := p.Fetch(t.Context(), into); !errors.As(err, &no) || !no.Running {
				t.Errorf("over a running server: %v", err)
			}
			// what went its own way since: to another moment
			s.Exec(t, "update t set v = 'gone' where i <= 1000")
			s.Stop(t, testpg.Fast)
			into.Delta = &restore.Delta{}
			if err := p.Fetch(t.Context(), into); err != nil {
				t.Fatal(err)
			}
			sameTrees(t, tree(t, into), want)
			if d := into.Delta; d.Written > 8<<20 {
				t.Errorf("of a server that ran: %+v", *d)
			}
		})
	}
}

// TestDeltaIncremental: a chain's frames of which a part is used.
func TestDeltaIncremental(t *testing.T) {
	r, _ := deltaRig(t, repository.Options{})
	m := r.backup(t, "b1")
	r.server.Exec(t, "update t set v = 'x' where i % 1000 = 1")
	r.incremental(t, "b2", m)
	p1, p2 := planOf(t, r, "b1"), planOf(t, r, "b2")
	into, _ := r.place(t)
	if err := p1.Fetch(t.Context(), into); err != nil {
		t.Fatal(err)
	}
	fresh, _ := r.place(t)
	if err := p2.Fetch(t.Context(), fresh); err != nil {
		t.Fatal(err)
	}
	into.Delta = &restore.Delta{}
	if err := p2.Fetch(t.Context(), into); err != nil {
		t.Fatal(err)
	}
	sameTrees(t, tree(t, into), tree(t, fresh))
	t.Logf("%d bytes: %+v", p2.BackupBytes, *into.Delta)
	if d := into.Delta; d.Written > 6<<20 || d.Kept < p2.BackupBytes/2 {
		t.Errorf("%+v of %d bytes", *d, p2.BackupBytes)
	}
}

// TestDeltaKilled: whenever it is killed, the directory does not start, and the next one
// makes of it what it should be.
func TestDeltaKilled(t *testing.T) {
	r, repo := deltaRig(t, repository.Options{})
	r.backup(t, "b1")
	p := planOf(t, r, "b1")
	fresh, _ := r.place(t)
	if err := p.Fetch(t.Context(), fresh); err != nil {
		t.Fatal(err)
	}
	want := tree(t, fresh)
	into, recovery := r.place(t)
	copyTrees(t, fresh, into)
	recovery.Into = into
	if _, err := p.Recover(t.Context(), recovery); err != nil {
		t.Fatal(err)
	}
	s := testpg.StartAt(t, into.DataDirectory, testpg.Options{Major: r.server.Major})
	s.Stop(t, testpg.Fast) // it does start
	work := child{Repo: repo, Lineage: r.lineage.Info().ID, Backup: "b1", Into: into}
	work.Into.Delta = &restore.Delta{}
	rnd := rand.New(rand.NewPCG(7, 7))
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	killed := 0
	for try := range 12 {
		begun := false
		proc, answer := work.start(t)
		// the directory tells that it was begun
		for deadline := time.Now().Add(30 * time.Second); !begun && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			_, err := os.Lstat(filepath.Join(into.DataDirectory, "postmaster.opts"))
			begun = errors.Is(err, fs.ErrNotExist)
		}
		time.Sleep(time.Duration(rnd.IntN(1+try*15)) * time.Millisecond)
		if err := proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		says, whole := <-answer
		if whole && says.Err != "" {
			t.Fatal(says.Err)
		}
		if !whole {
			killed++
			if _, err := os.Lstat(filepath.Join(into.DataDirectory, "backup_label")); errors.Is(err, fs.ErrNotExist) {
				if out, ok := starts(t, r.server.BinDir, into.DataDirectory); ok {
					t.Fatalf("try %d: it starts:\n%s", try, out)
				}
			}
		}
		spoil(t, rnd, into.DataDirectory, outside)
		if err := os.WriteFile(filepath.Join(into.DataDirectory, "postmaster.opts"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if killed < 4 {
		t.Errorf("only %d of 12 were killed in the middle", killed)
	}
	if says := work.do(t); says.Err != "" {
		t.Fatal(says.Err)
	}
	sameTrees(t, tree(t, into), want)
	t.Logf("%d of 12 were killed in the middle", killed)
}

// TestDeltaReadOnly: who is not root restores over files that he may only read himself, as
// keys are.
func TestDeltaReadOnly(t *testing.T) {
	r, repo := deltaRig(t, repository.Options{})
	uid, gid := testpg.Owner(t)
	key := filepath.Join(r.server.DataDir, "server.key")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(key, []byte("a key"), 0o400))
	must(os.Lchown(key, uid, gid))
	r.backup(t, "b1")
	into, _ := r.place(t)
	place := filepath.Join(filepath.Dir(into.DataDirectory), "repo")
	for _, cmd := range [][]string{{"cp", "-a", repo, place}, {"chown", "-R", fmt.Sprint(uid, ":", gid), place, filepath.Dir(place)}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	work := child{Repo: place, Lineage: r.lineage.Info().ID, Backup: "b1", Into: into, AsOwner: true}
	if says := work.do(t); says.Err != "" {
		t.Fatal(says.Err)
	}
	want := tree(t, into)
	restoredKey := filepath.Join(into.DataDirectory, "server.key")
	must(os.Chmod(restoredKey, 0o600))
	must(os.WriteFile(restoredKey, []byte("other"), 0o600))
	for _, mode := range []os.FileMode{0o400, 0o600} {
		must(os.Chmod(restoredKey, mode))
		work.Into.Delta = &restore.Delta{}
		if says := work.do(t); says.Err != "" {
			t.Fatal(says.Err)
		}
		sameTrees(t, tree(t, into), want)
	}
}

// TestDeltaKeepsTheLabel: as long as a directory's control file names a checkpoint its label
// stays. Without it a base backup that was never started would begin at the wrong one.
func TestDeltaKeepsTheLabel(t *testing.T) {
	r, _ := deltaRig(t, repository.Options{})
	r.backup(t, "b1")
	p := planOf(t, r, "b1")
	into, _ := r.place(t)
	if err := p.Fetch(t.Context(), into); err != nil {
		t.Fatal(err)
	}
	control, err := os.ReadFile(filepath.Join(r.server.DataDir, "global", "pg_control"))
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(into.DataDirectory, "global", "pg_control")
	if err := os.WriteFile(at, control, 0o600); err != nil {
		t.Fatal(err)
	}
	// no other control file can be put
	if err := os.MkdirAll(filepath.Join(at+".new", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	before := tree(t, into)
	into.Delta = &restore.Delta{}
	if err := p.Fetch(t.Context(), into); err == nil {
		t.Fatal("it was restored over")
	}
	sameTrees(t, tree(t, into), before)
}

// starts tells whether the server's program takes the directory.
func starts(t *testing.T, bin, data string) (string, bool) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "postgres"), "--single", "-D", data, "template1")
	cmd.Dir = "/"
	uid, gid := testpg.Owner(t)
	if uid >= 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	cmd.Stdin = strings.NewReader("")
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

// TestDeltaRefused: directories that are not to be restored over stay as they are.
func TestDeltaRefused(t *testing.T) {
	r, _ := deltaRig(t, repository.Options{})
	r.backup(t, "b1")
	p := planOf(t, r, "b1")
	other := testpg.Start(t, testpg.Options{})
	other.Stop(t, testpg.Fast)
	empty := serverDir(t)
	root := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(other.DataDir, link); err != nil {
		t.Fatal(err)
	}
	uid, gid := testpg.Owner(t)
	for _, test := range []struct{ name, dir, want string }{
		{"running", r.server.DataDir, "runs in it"},
		{"another server's", other.DataDir, "another server's"},
		{"empty", empty, "no control file"},
		{"another user's", root, "belongs to user 0"},
		{"a link", link, "not a directory"},
		{"nothing", filepath.Join(root, "none"), "no such file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var before map[string]string
			into := restore.Into{DataDirectory: test.dir, Tablespaces: filepath.Join(root, "spaces"), UID: uid, GID: gid, Jobs: 1, Delta: &restore.Delta{}}
			if test.name != "running" {
				before = tree(t, into)
			}
			var no *restore.NotReusableError
			if err := p.Fetch(t.Context(), into); !errors.As(err, &no) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if test.name != "running" {
				sameTrees(t, tree(t, into), before)
			}
		})
	}
	var n int
	r.server.QueryRow(t, "select count(*) from t", &n)
	if n != 200000 {
		t.Errorf("%d rows in the server that ran", n)
	}
}
