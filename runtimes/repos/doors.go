// SPDX-License-Identifier: Apache-2.0

package repos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/blob/s3"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/store"
)

// annotationRepository is on a BackupRepo, and holds the id of the repository that was
// found or made there first. Where that is not there any more, an empty directory below
// a mount that is gone or another bucket, nothing is made in its place.
const annotationRepository = "dataprotection.kubeblocks.io/repository-id"

// Set is the repositories of an installation. Each is opened once per generation of its
// object. One that does not answer keeps nobody waiting for another.
type Set struct {
	Objects store.Store
	Copies  string // directory: what was written into sealed repositories is known from there; empty is nowhere
	Clock   func() time.Time
	Log     *slog.Logger

	// Given tells whether this process was given the keys of a repository; nil where it has
	// all. What it was not given is left out where many are looked through.
	Given func(*v1alpha1.BackupRepo) bool
	// Identity is who locks lineages to let go what nobody needs; nil where nothing does.
	Identity *agent.Identity
	// Volumes are the VolumeSnapshots that backups are; nil where there are none.
	Volumes Volumes
	// Listed, if set, is given all BackupRepos whenever all could be read.
	Listed func([]*v1alpha1.BackupRepo) error
	// Event takes note of what happened to an object; nil where nobody listens.
	Event agent.EventFunc

	mu    sync.Mutex
	doors map[types.UID]*door
}

// Volumes finds and removes the VolumeSnapshots of backups, as repository.Options asks for.
type Volumes interface {
	Reach(m *repository.Manifest) error
	Remove(ctx context.Context, lineage string, m *repository.Manifest) error
}

// reach says whether the files of a snapshot can be had.
func (r *Set) reach(m *repository.Manifest) error {
	if r.Volumes != nil && m.Snapshot != nil && m.Snapshot.VolumeSnapshot != "" {
		return r.Volumes.Reach(m)
	}
	return basebackup.Here(m)
}

// door is the way into one repository. Who holds its key may open it.
type door struct {
	key        chan struct{} // holds one
	generation int64
	repo       *repository.Repository
	err        error // of the last try
	tried      time.Time
}

// freshFailure is how long a failure to open is the answer to those who waited for it.
const freshFailure = 2 * time.Second

// Named opens the repository of a BackupRepo; an empty name is the default one. It
// also gives the name.
func (r *Set) Named(ctx context.Context, name string) (*repository.Repository, string, error) {
	obj, err := r.Object(ctx, name)
	if err != nil {
		return nil, "", err
	}
	repo, err := r.Of(ctx, obj)
	return repo, obj.Name, err
}

// Of opens the repository that an object describes.
func (r *Set) Of(ctx context.Context, obj *v1alpha1.BackupRepo) (*repository.Repository, error) {
	r.mu.Lock()
	if r.doors == nil {
		r.doors = map[types.UID]*door{}
	}
	d := r.doors[obj.UID]
	if d == nil {
		d = &door{key: make(chan struct{}, 1)}
		d.key <- struct{}{}
		r.doors[obj.UID] = d
	}
	r.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-d.key:
	}
	defer func() { d.key <- struct{}{} }()
	if d.generation == obj.Generation {
		if d.repo != nil {
			return d.repo, nil
		}
		if d.err != nil && time.Since(d.tried) < freshFailure {
			return nil, d.err
		}
	}
	repo, err := r.openRepository(ctx, obj)
	if err != nil {
		err = fmt.Errorf("repository %s: %w", obj.Name, placeError(obj, err))
	}
	if ctx.Err() == nil {
		d.generation, d.repo, d.err, d.tried = obj.Generation, repo, err, time.Now()
	}
	return repo, err
}

// Forget sees to it that a repository is opened anew.
func (r *Set) Forget(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.doors, uid)
}

// Object is the BackupRepo of a name, the default one for "".
func (r *Set) Object(ctx context.Context, name string) (*v1alpha1.BackupRepo, error) {
	if name != "" {
		return store.Get[*v1alpha1.BackupRepo](ctx, r.Objects, "", name)
	}
	all, err := store.List[*v1alpha1.BackupRepo](ctx, r.Objects, "", nil)
	for _, o := range all {
		if o.Spec.Default {
			return o, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: no BackupRepo is the default", repository.ErrNoRepository)
}

// All opens every repository that can be opened; those that cannot are told in the
// error, beside the others.
func (r *Set) All(ctx context.Context) (map[string]*repository.Repository, error) {
	objs, err := store.List[*v1alpha1.BackupRepo](ctx, r.Objects, "", nil)
	out := map[string]*repository.Repository{}
	errs := []error{err}
	for _, o := range objs {
		if r.Given != nil && !r.Given(o) {
			continue
		}
		repo, name, err := r.Named(ctx, o.Name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out[name] = repo
	}
	return out, errors.Join(errs...)
}

// openRepository opens the place that an object describes, and lays a repository
// out there if there is none.
func (r *Set) openRepository(ctx context.Context, o *v1alpha1.BackupRepo) (*repository.Repository, error) {
	place, err := OpenPlace(ctx, o)
	if err != nil {
		return nil, err
	}
	opt := repository.Options{Clock: r.Clock, Snapshots: r.reach, Copies: r.Copies}
	if r.Volumes != nil {
		opt.RemoveSnapshot = r.Volumes.Remove
	}
	if s := o.Spec.Sealing; s != nil {
		opt.Recipients = s.Recipients
		if s.IdentityFile != "" {
			b, err := os.ReadFile(s.IdentityFile)
			if err != nil {
				return nil, fmt.Errorf("identity: %w", err)
			}
			opt.Identities = string(b)
		}
	}
	patient := blob.Retry(place, blob.RetryOptions{
		MaxElapsed: 20 * time.Second,
		Notify: func(e blob.RetryEvent) {
			r.Log.Warn("storage is asked again", "repository", o.Name, "error", e.Err)
		},
	})
	known := o.Annotations[annotationRepository]
	repo, err := repository.Open(ctx, patient, opt)
	switch {
	case err == nil && known != "" && repo.ID() != known:
		return nil, &OtherRepositoryError{Place: place.String(), Want: known, Have: repo.ID()}
	case !errors.Is(err, repository.ErrNoRepository):
		return repo, err
	case known != "":
		return nil, &OtherRepositoryError{Place: place.String(), Want: known}
	}
	// put-if-absent is what everything rests upon: a place that overwrites is refused
	if err := blob.CheckPut(ctx, place); err != nil {
		return nil, err
	}
	return repository.Create(ctx, patient, opt)
}

// OpenPlace opens the place that an object describes, and asks for nothing there. A directory
// is made if it never held a repository.
func OpenPlace(ctx context.Context, o *v1alpha1.BackupRepo) (blob.Store, error) {
	if o.Spec.StorageProvider == v1alpha1.ProviderFilesystem {
		if o.Annotations[annotationRepository] != "" {
			return fs.Open(o.Spec.Filesystem.Path) // it was there: a mount may be missing
		}
		return fs.Create(o.Spec.Filesystem.Path)
	}
	if o.Spec.PersistentVolumeClaim != nil {
		return openVolume(o)
	}
	spec := o.Spec.S3
	pathStyle := &spec.PathStyle
	if !spec.PathStyle {
		pathStyle = nil
	}
	cfg := s3.Config{
		Endpoint: spec.Endpoint, Region: spec.Region, Bucket: spec.Bucket, Prefix: spec.Prefix,
		PathStyle: pathStyle, CAFile: spec.CAFile, InsecureSkipVerify: spec.InsecureSkipVerify,
	}
	var creds s3.Credentials
	var err error
	if spec.CredentialsFile != "" {
		creds, err = s3.ReadCredentials(spec.CredentialsFile, "default")
	} else {
		creds = s3.Credentials{
			AccessKey: os.Getenv("AWS_ACCESS_KEY_ID"), SecretKey: s3.NewSecret(os.Getenv("AWS_SECRET_ACCESS_KEY")),
			SessionToken: s3.NewSecret(os.Getenv("AWS_SESSION_TOKEN")),
		}
	}
	if err != nil {
		return nil, err
	}
	return s3.Open(ctx, cfg.WithCredentials(creds))
}

// SecretFiles are the files with secrets that a BackupRepo names.
func SecretFiles(o *v1alpha1.BackupRepo) []string {
	var out []string
	if s := o.Spec.S3; s != nil {
		out = append(out, s.CredentialsFile, s.CAFile)
	}
	if o.Spec.PersistentVolumeClaim != nil {
		out = append(out, volumeAccess(o))
	}
	if s := o.Spec.Sealing; s != nil {
		out = append(out, s.IdentityFile)
	}
	return slices.DeleteFunc(out, func(p string) bool { return p == "" })
}

// OtherRepositoryError says that a place does not hold the repository that it held.
type OtherRepositoryError struct {
	Place      string
	Want, Have string // ids; without Have there is none
}

func (e *OtherRepositoryError) Error() string {
	if e.Have == "" {
		return fmt.Sprintf("%s no longer holds the repository %s: its object \"repository\" is missing. Nothing was made in its place", e.Place, e.Want)
	}
	return fmt.Sprintf("%s holds the repository %s, and not %s as before", e.Place, e.Have, e.Want)
}

// placeError adds to an error of a place what to do about it.
func placeError(o *v1alpha1.BackupRepo, err error) error {
	var other *OtherRepositoryError
	filesystem, claim := o.Spec.Filesystem != nil, o.Spec.PersistentVolumeClaim
	next := ""
	switch {
	case claim != nil:
		next = volumeNext(o, err)
	case errors.As(err, &other):
		next = "mount or point it at the place it was in, or make a BackupRepo of another name for this one"
	case errors.Is(err, blob.ErrNoBucket) && filesystem:
		next = "is the disk mounted?"
	case errors.Is(err, blob.ErrNoBucket):
		next = "make the bucket " + o.Spec.S3.Bucket + ", or name another"
	case errors.Is(err, blob.ErrDenied) && filesystem:
		next = "the agent's user must be able to write there"
	case errors.Is(err, blob.ErrDenied):
		next = "the keys are wrong, have expired or lack a right: kbcli backuprepo update " + o.Name + " --credentials-file FILE gives others"
	case errors.Is(err, blob.ErrUnreachable) && !filesystem:
		next = "does the endpoint answer from this machine?"
	case errors.Is(err, repository.ErrSealed):
		next = "kbcli backuprepo update " + o.Name + " --identity-file FILE"
	}
	if next == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, next)
}
