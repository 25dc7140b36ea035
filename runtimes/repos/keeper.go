// SPDX-License-Identifier: Apache-2.0

package repos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/store"
)

const (
	probeInterval     = 15 * time.Second // how often an idle repository is asked whether it is there
	inventoryInterval = time.Hour        // how often what it holds is compared with the objects
	homelessInterval  = time.Minute      // the same, while some of it has no namespace to be in
	failedInterval    = 10 * time.Second // how often one that failed is tried again
)

// Keepers are those of the repositories there are.
type Keepers map[types.UID]*repoKeeper

// repoKeeper looks after one BackupRepo, beside all others: it opens the repository,
// brings back what it holds, removes the bytes of Backups that were deleted, lets go what
// clusters left behind, and says how it stands. It ends when its object is gone.
type repoKeeper struct {
	r    *Set
	name string
	uid  types.UID
	wake chan struct{}
	done chan struct{}

	attached  int64     // the generation that was; 0 is none
	tried     int64     // the generation that was tried last
	triedAt   time.Time // when that ended
	probed    time.Time
	inventory time.Time
	expired   time.Time            // by the runtime's clock
	swept     map[string]time.Time // by lineage: when leftovers were looked for
	message   string               // what is not as it should be in a repository that is ready
	trouble   string               // why nothing of those that left expires
}

// Keep starts a keeper for each BackupRepo that has none, and makes the others look.
func (r *Set) Keep(ctx context.Context, keepers Keepers, wg *sync.WaitGroup) error {
	all, err := store.List[*v1alpha1.BackupRepo](ctx, r.Objects, "", nil)
	there := map[types.UID]bool{}
	for _, o := range all {
		there[o.UID] = true
		if k, ok := keepers[o.UID]; ok {
			k.poke()
			continue
		}
		k := &repoKeeper{r: r, name: o.Name, uid: o.UID, wake: make(chan struct{}, 1), done: make(chan struct{})}
		keepers[o.UID] = k
		wg.Go(func() { k.run(ctx) })
	}
	for uid, k := range keepers {
		if there[uid] {
			continue
		}
		k.poke()
		select {
		case <-k.done:
			delete(keepers, uid)
		default:
		}
	}
	if err == nil && r.Listed != nil { // one that cannot be read may name any key
		err = r.Listed(all)
	}
	return errors.Join(err, r.seeToStrayBackups(ctx, all))
}

func (k *repoKeeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *repoKeeper) run(ctx context.Context) {
	defer close(k.done)
	defer k.r.Forget(k.uid)
	for {
		err := k.look(ctx)
		if ctx.Err() != nil || errors.Is(err, errGone) {
			return
		}
		if err != nil {
			k.r.Log.Warn("a repository is not as it should be", "repository", k.name, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		}
	}
}

func (k *repoKeeper) look(ctx context.Context) error {
	o, err := store.Get[*v1alpha1.BackupRepo](ctx, k.r.Objects, "", k.name)
	if apierrors.IsNotFound(err) || err == nil && o.UID != k.uid {
		return errGone
	}
	if err != nil {
		return err
	}
	phase, message := v1alpha1.RepoReady, ""
	if err := k.attach(ctx, o); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		phase, message = volumePhase(o, err)
	}
	tried := o.Generation
	if o, err = store.Get[*v1alpha1.BackupRepo](ctx, k.r.Objects, "", k.name); err != nil || o.UID != k.uid {
		return nil // the next look sees that
	}
	if o.Generation != tried {
		k.poke() // it was changed meanwhile: what was found is not of this one
		return nil
	}
	var errs []error
	if phase == v1alpha1.RepoReady {
		errs = append(errs, k.deleteBackups(ctx, o), k.expireLeft(ctx, o))
		message = k.message
		if k.trouble != "" {
			message = strings.TrimPrefix(message+"; "+k.trouble, "; ")
		}
		if words := volumeWords(o); words != "" {
			message = strings.TrimPrefix(message+"; "+words, "; ")
		}
	}
	return errors.Join(append(errs, k.r.noteRepo(ctx, o, phase, message))...)
}

// attach opens the repository where that is due, and brings back the backups that it
// holds.
func (k *repoKeeper) attach(ctx context.Context, o *v1alpha1.BackupRepo) error {
	now := time.Now() // not the clock of backups: it counts seconds between looks
	compare := k.attached != o.Generation || now.Sub(k.inventory) >= inventoryInterval || k.strays(ctx) ||
		strings.Contains(k.message, noNamespace) && now.Sub(k.inventory) >= homelessInterval
	if !compare && now.Sub(k.probed) < probeInterval {
		return nil
	}
	if k.attached != o.Generation && k.tried == o.Generation && now.Sub(k.triedAt) < failedInterval && o.Status.Phase == v1alpha1.RepoFailed {
		return errors.New(o.Status.Message)
	}
	k.tried, k.attached = o.Generation, 0
	defer func() { k.triedAt = time.Now() }()
	repo, err := k.r.Of(ctx, o)
	if err != nil {
		return err
	}
	if err := k.r.noteID(ctx, o, repo.ID()); err != nil {
		return err
	}
	if err := k.fits(ctx, o, repo); err != nil {
		k.r.Forget(k.uid)
		return err
	}
	if compare {
		k.message, err = k.r.reattach(ctx, o.Name, repo)
		k.inventory = now
	} else {
		_, err = repo.Store().Stat(ctx, "repository")
	}
	if err != nil {
		k.r.Forget(k.uid) // it may not be what it was
		return fmt.Errorf("repository %s: %w", o.Name, placeError(o, err))
	}
	k.attached, k.probed = o.Generation, now
	return nil
}

// fits tells whether an identity that was just given opens what is there. One that was
// taken before is not doubted: what is archived must not wait for it.
func (k *repoKeeper) fits(ctx context.Context, o *v1alpha1.BackupRepo, repo *repository.Repository) error {
	if o.Status.ObservedGeneration >= o.Generation || !repo.Sealed() || o.Spec.Sealing == nil || o.Spec.Sealing.IdentityFile == "" {
		return nil
	}
	lineages, err := repo.Lineages(ctx)
	if err != nil {
		return err
	}
	if err := TryKey(ctx, lineages); errors.Is(err, repository.ErrSealed) {
		return fmt.Errorf("repository %s: %s: %w", o.Name, runtimes.WrongIdentity, err)
	}
	return nil
}

// noteID notes which repository was found in a place, so that it is missed when another
// or none is there.
func (r *Set) noteID(ctx context.Context, o *v1alpha1.BackupRepo, id string) error {
	if o.Annotations[annotationRepository] == id {
		return nil
	}
	_, err := store.Mutate(ctx, r.Objects, "", o.Name, func(o *v1alpha1.BackupRepo) error {
		if o.Annotations == nil {
			o.Annotations = map[string]string{}
		}
		o.Annotations[annotationRepository] = id
		return nil
	})
	return err
}

// strays tells whether there are Backups in a repository that has no BackupRepo: this
// one may be where it went.
func (k *repoKeeper) strays(ctx context.Context) bool {
	if time.Since(k.inventory) < failedInterval {
		return false
	}
	all, err := store.List[*v1alpha1.BackupRepo](ctx, k.r.Objects, "", nil)
	if err != nil {
		return false // one that cannot be read may be it
	}
	names := map[string]bool{"": true}
	for _, o := range all {
		names[o.Name] = true
	}
	known, err := k.r.knownBackups(ctx)
	for _, b := range known {
		if b != nil && b.DeletionTimestamp == nil && !names[b.Status.Repo] {
			return err == nil
		}
	}
	return false
}

// noteRepo writes a repository's status, if it changed.
func (r *Set) noteRepo(ctx context.Context, o *v1alpha1.BackupRepo, phase v1alpha1.BackupRepoPhase, message string) error {
	known, err := r.knownBackups(ctx)
	if err != nil {
		return err
	}
	want := v1alpha1.BackupRepoStatus{Phase: phase, Message: message, ObservedGeneration: o.Generation, Volume: o.Status.Volume}
	want.Backups, want.TotalSize = contents(known, o.Name)
	if o.Status == want {
		return nil
	}
	r.tellRepo(o, phase, message)
	_, err = store.MutateStatus(ctx, r.Objects, "", o.Name, func(o *v1alpha1.BackupRepo) error {
		want.Volume = o.Status.Volume // somebody else's to say
		o.Status = want
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// deleteBackups removes the bytes of Backups that were deleted, and then lets the
// objects go.
func (k *repoKeeper) deleteBackups(ctx context.Context, o *v1alpha1.BackupRepo) error {
	all, err := store.List[*v1alpha1.Backup](ctx, k.r.Objects, "", nil)
	errs := []error{err}
	for _, b := range all {
		if b.DeletionTimestamp == nil || b.Status.Lineage == "" || b.Status.Repo != o.Name {
			continue
		}
		errs = append(errs, k.r.deleteBackup(ctx, b, func() error {
			repo, err := k.r.Of(ctx, o)
			if err != nil {
				return err
			}
			return agent.DeleteBackup(ctx, repo, b, all)
		}))
	}
	return errors.Join(errs...)
}

// seeToStrayBackups lets go of deleted Backups that have no bytes, and says of those
// whose repository has no BackupRepo why they stay.
func (r *Set) seeToStrayBackups(ctx context.Context, repos []*v1alpha1.BackupRepo) error {
	names := map[string]bool{}
	for _, o := range repos {
		names[o.Name] = true
	}
	all, err := store.List[*v1alpha1.Backup](ctx, r.Objects, "", nil)
	errs := []error{err}
	for _, b := range all {
		switch {
		case b.DeletionTimestamp == nil || b.Status.Lineage != "" && names[b.Status.Repo]:
		case b.Status.Lineage == "":
			errs = append(errs, r.deleteBackup(ctx, b, func() error { return nil }))
		default:
			// it may be a BackupRepo that cannot be read
			if _, err := r.Object(ctx, b.Status.Repo); apierrors.IsNotFound(err) {
				errs = append(errs, r.deleteBackup(ctx, b, func() error {
					return fmt.Errorf("its repository %s is not known any more: kbcli backuprepo create makes it known", b.Status.Repo)
				}))
			}
		}
	}
	return errors.Join(errs...)
}

// deleteBackup takes a deleted Backup away once remove has removed its bytes.
func (r *Set) deleteBackup(ctx context.Context, b *v1alpha1.Backup, remove func() error) error {
	if b.Status.Phase != v1alpha1.BackupDeleting {
		_, err := store.MutateStatus(ctx, r.Objects, b.Namespace, b.Name, func(b *v1alpha1.Backup) error {
			b.Status.Phase, b.Status.FailureReason = v1alpha1.BackupDeleting, ""
			return nil
		})
		return err // the next round goes on: whoever takes this backup sees it first
	}
	if err := remove(); err != nil {
		if b.Status.FailureReason != err.Error() && ctx.Err() == nil {
			_, serr := store.MutateStatus(ctx, r.Objects, b.Namespace, b.Name, func(b *v1alpha1.Backup) error {
				b.Status.FailureReason = err.Error()
				return nil
			})
			err = errors.Join(err, serr)
		}
		return fmt.Errorf("delete backup %s: %w", b.Name, err)
	}
	_, err := store.Mutate(ctx, r.Objects, b.Namespace, b.Name, func(b *v1alpha1.Backup) error {
		b.Finalizers = without(b.Finalizers, agent.BackupFinalizer)
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (r *Set) tell(object string, t runtimes.EventType, reason, message string) {
	if r.Event != nil {
		r.Event(object, t, reason, message)
	}
}

// tellRepo records that a repository is reached, or no longer.
func (r *Set) tellRepo(o *v1alpha1.BackupRepo, is v1alpha1.BackupRepoPhase, message string) {
	object, was := v1alpha1.KindBackupRepo+"/"+o.Name, o.Status
	switch {
	case is == v1alpha1.RepoFailed && (was.Phase != is || was.Message != message):
		r.tell(object, runtimes.EventWarning, "RepositoryUnreachable", cmp.Or(message, "nobody knows why"))
	case is == v1alpha1.RepoReady && was.Phase == v1alpha1.RepoFailed:
		r.tell(object, runtimes.EventNormal, "RepositoryReady", "it is reached again")
	case is == v1alpha1.RepoReady && was.Phase != is:
		r.tell(object, runtimes.EventNormal, "RepositoryReady", "it is reached")
	}
}

// TryKey reads something small that is sealed, if there is anything.
func TryKey(ctx context.Context, lineages []*repository.Lineage) error {
	for _, l := range lineages {
		for g, err := range l.Indexed(ctx, pg.Segment{}) {
			if err != nil {
				return err
			}
			_, err = l.Index(ctx, g.Segment)
			return err
		}
	}
	return nil
}

func without(list []string, s string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(x string) bool { return x == s })
}

// errGone says that there is nothing more to keep.
var errGone = errors.New("the repository is gone")
