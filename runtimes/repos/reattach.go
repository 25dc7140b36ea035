// SPDX-License-Identifier: Apache-2.0

package repos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/store"
)

// annotationReattached is on a Backup that was made from its manifest, and holds the
// lineage. Such an object is never a wish for a new backup, not even in the moment
// between its making and its first status.
const annotationReattached = "dataprotection.kubeblocks.io/reattached-from"

// reattach makes a Backup object for each manifest of a repository that has none, so
// that a repository brings its backups back after the objects were lost. It is called
// by the one goroutine that also lets the repository's deleted backups go, and lists the objects before
// the manifests. So it never brings back what is being removed, as an object stays until
// its manifest is gone. After a crash in the middle it is called again and finds what is
// left to do.
//
// The words are what could not be brought back, and why, and what is missing; empty is
// nothing. An error is
// of the storage or the objects, not of damage.
func (r *Set) reattach(ctx context.Context, name string, repo *repository.Repository) (string, error) {
	known, err := r.knownBackups(ctx)
	if err != nil {
		return "", err
	}
	var left []string
	homeless := map[string]int{}              // backups by the namespace that is not here
	held := map[types.NamespacedName]string{} // the lineage of each backup that is there
	lineages, err := repo.Lineages(ctx)
	if left, err = setAside(left, err); err != nil {
		return "", err
	}
	for _, l := range lineages {
		manifests, err := l.Manifests(ctx)
		if left, err = setAside(left, err); err != nil {
			return "", err
		}
		for _, m := range manifests {
			held[types.NamespacedName{Namespace: l.Info().Namespace, Name: m.Name}] += l.Info().ID + "/"
			why, err := r.reattachOne(ctx, name, l, m, known)
			if errors.Is(err, errNoNamespace) {
				homeless[l.Info().Namespace]++
				continue
			}
			if err != nil {
				return "", fmt.Errorf("bring back backup %s: %w", m.Name, err)
			}
			if why != "" {
				left = append(left, why)
			}
		}
	}
	for _, ns := range slices.Sorted(maps.Keys(homeless)) {
		left = append(left, fmt.Sprintf("backups of namespace %s (%d), "+noNamespace, ns, homeless[ns]))
	}
	var words []string
	if len(left) > 0 {
		words = append(words, "not brought back: "+strings.Join(left, "; "))
	}
	gone, err := r.missing(ctx, name, known, lineages, held)
	if len(gone) > 0 {
		words = append(words, "missing: "+strings.Join(gone, "; "))
	}
	return strings.Join(words, "; "), err
}

// noNamespace is said of backups for which errNoNamespace holds.
const noNamespace = "which is not here: make it, and they come within a minute"

// errNoNamespace says that a Backup's namespace is not there, as in another Kubernetes than
// the one that took it.
var errNoNamespace = errors.New("there is no such namespace")

// missing names what Backups say that the repository holds, and it does not.
func (r *Set) missing(ctx context.Context, name string, known map[types.NamespacedName]*v1alpha1.Backup, lineages []*repository.Lineage, held map[types.NamespacedName]string) ([]string, error) {
	var out []string
	for key, b := range known {
		if b == nil || b.Status.Repo != name || b.Status.Phase != v1alpha1.BackupCompleted || b.Status.Lineage == "" ||
			strings.Contains("/"+held[key], "/"+b.Status.Lineage+"/") {
			continue
		}
		// it may have been deleted since it was listed
		now, err := store.Get[*v1alpha1.Backup](ctx, r.Objects, key.Namespace, key.Name)
		if apierrors.IsNotFound(err) || err == nil && (now.DeletionTimestamp != nil || now.UID != b.UID || now.Status.Repo != name) {
			continue
		}
		if err != nil {
			return nil, err
		}
		what := "the manifest"
		if !slices.ContainsFunc(lineages, func(l *repository.Lineage) bool { return l.Info().ID == b.Status.Lineage }) {
			what = "the description of lineage " + b.Status.Lineage
		}
		out = append(out, fmt.Sprintf("%s of backup %s/%s", what, key.Namespace, key.Name))
	}
	slices.Sort(out)
	return out, nil
}

// setAside adds damage to the list, and returns any other error.
func setAside(list []string, err error) ([]string, error) {
	var corrupt *repository.CorruptError
	if !errors.As(err, &corrupt) {
		return list, err
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			list = append(list, e.Error())
		}
		return list, nil
	}
	return append(list, err.Error()), nil
}

// knownBackups are the objects there are. One that cannot be read has nil.
func (r *Set) knownBackups(ctx context.Context) (map[types.NamespacedName]*v1alpha1.Backup, error) {
	all, err := store.List[*v1alpha1.Backup](ctx, r.Objects, "", nil)
	out := map[types.NamespacedName]*v1alpha1.Backup{}
	var broken store.BrokenObjects
	if err != nil && !errors.As(err, &broken) {
		return nil, err
	}
	for _, b := range broken {
		out[types.NamespacedName{Namespace: b.Key.Namespace, Name: b.Key.Name}] = nil
	}
	for _, b := range all {
		out[types.NamespacedName{Namespace: b.Namespace, Name: b.Name}] = b
	}
	return out, nil
}

func (r *Set) reattachOne(ctx context.Context, repoName string, l *repository.Lineage, m *repository.Manifest, known map[types.NamespacedName]*v1alpha1.Backup) (string, error) {
	info := l.Info()
	key := types.NamespacedName{Namespace: info.Namespace, Name: m.Name}
	have, ok := known[key]
	switch {
	case !ok:
		b := backupOf(info, m)
		err := r.Objects.Create(ctx, b)
		if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
			return fmt.Sprintf("backup %s of lineage %s: %v", m.Name, info.ID, err), nil
		}
		if apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, "NamespaceTerminating") {
			return "", errNoNamespace
		}
		if apierrors.IsAlreadyExists(err) {
			return "", nil // somebody made one since, and the backup with it
		}
		if err != nil {
			return "", err
		}
		known[key] = b
		return "", r.fillReattached(ctx, repoName, l, m)
	case have == nil || have.DeletionTimestamp != nil:
		return "", nil
	case unsettled(have) && have.Annotations[annotationReattached] == info.ID:
		return "", r.fillReattached(ctx, repoName, l, m)
	case have.Status.Lineage == info.ID:
		return "", errors.Join(r.rename(ctx, repoName, have), r.noteReach(ctx, l, m, have))
	}
	return fmt.Sprintf("backup %s of lineage %s: another Backup of namespace %s has its name", m.Name, info.ID, info.Namespace), nil
}

// backupOf is the object that asks for what the manifest says was taken.
func backupOf(info repository.LineageInfo, m *repository.Manifest) *v1alpha1.Backup {
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{
		Namespace: info.Namespace, Name: m.Name, Finalizers: []string{agent.BackupFinalizer},
		Annotations: map[string]string{annotationReattached: info.ID},
	}}
	b.Spec.ClusterRef, b.Spec.BackupType = info.Cluster, v1alpha1.BackupDatafile
	switch m.Type {
	case repository.TypeIncremental:
		b.Spec.BackupType = v1alpha1.BackupIncremental
	case repository.TypeSnapshot:
		b.Spec.BackupType = v1alpha1.BackupSnapshot
	}
	if !m.Manual {
		// the manifest does not say which policy it was
		b.Labels = map[string]string{v1alpha1.LabelScheduled: v1alpha1.DefaultBackupPolicyName(info.Cluster)}
	}
	b.SetDefaults()
	return b
}

func (r *Set) fillReattached(ctx context.Context, repoName string, l *repository.Lineage, m *repository.Manifest) error {
	info, why := l.Info(), l.Repository().Reach(m)
	_, err := store.MutateStatus(ctx, r.Objects, info.Namespace, m.Name, func(b *v1alpha1.Backup) error {
		if !unsettled(b) {
			return nil // deleted meanwhile
		}
		s := &b.Status
		agent.FillStatus(s, m)
		s.Phase, s.Manual, s.Repo, s.Lineage = v1alpha1.BackupCompleted, m.Manual, repoName, info.ID
		s.StartTimestamp, s.CompletionTimestamp = metav1.NewTime(m.StartTime), metav1.NewTime(m.Written)
		if d := m.Written.Sub(m.StartTime); d > 0 { // they are of two clocks
			s.Duration = metav1.Duration{Duration: d.Round(time.Millisecond)}
		}
		if why != nil {
			agent.NoteReach(s, why)
		}
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		r.Log.Info("a backup was found in the repository", "backup", info.Namespace+"/"+m.Name, "lineage", info.ID)
	}
	return err
}

// rename tells a Backup the name that its repository has now, unless it still has the
// one that the Backup says.
func (r *Set) rename(ctx context.Context, repoName string, b *v1alpha1.Backup) error {
	if b.Status.Repo == repoName {
		return nil
	}
	if _, err := r.Object(ctx, b.Status.Repo); !apierrors.IsNotFound(err) {
		return err
	}
	_, err := store.MutateStatus(ctx, r.Objects, b.Namespace, b.Name, func(b *v1alpha1.Backup) error {
		b.Status.Repo = repoName
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// unsettled tells that a Backup was brought back and has not been given its status.
func unsettled(b *v1alpha1.Backup) bool {
	return b.Annotations[annotationReattached] != "" && b.PhaseOrNew() == v1alpha1.BackupNew
}

// Wishes is the store as a Protector sees it: without the Backups that are being
// brought back, which it would take for backups that somebody asks for.
type Wishes struct{ store.Store }

func (w Wishes) List(ctx context.Context, kind, namespace string, selector map[string]string) ([]v1alpha1.Object, error) {
	all, err := w.Store.List(ctx, kind, namespace, selector)
	return slices.DeleteFunc(all, func(o v1alpha1.Object) bool {
		b, ok := o.(*v1alpha1.Backup)
		return ok && unsettled(b)
	}), err
}

// contents says how many backups of a repository there are, and how many bytes their
// objects in it take: WAL is not counted.
func contents(known map[types.NamespacedName]*v1alpha1.Backup, repoName string) (backups, bytes int64) {
	for _, b := range known {
		if b != nil && b.Status.Repo == repoName && b.Status.Phase == v1alpha1.BackupCompleted {
			backups, bytes = backups+1, bytes+b.Status.TotalSize
		}
	}
	return backups, bytes
}

// noteReach tells in a Backup that is there already whether its snapshot is.
func (r *Set) noteReach(ctx context.Context, l *repository.Lineage, m *repository.Manifest, b *v1alpha1.Backup) error {
	why := l.Repository().Reach(m)
	lost := why != nil && b.Status.Phase == v1alpha1.BackupCompleted
	back := m.Snapshot != nil && why == nil && b.Status.Phase == v1alpha1.BackupFailed
	if !lost && !back || b.DeletionTimestamp != nil {
		return nil
	}
	_, err := store.MutateStatus(ctx, r.Objects, b.Namespace, b.Name, func(b *v1alpha1.Backup) error {
		agent.NoteReach(&b.Status, why)
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
