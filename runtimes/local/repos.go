// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/blob/s3"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/store"
)

// defaultRepo is the BackupRepo that a new state directory begins with.
const defaultRepo = "local"

// repos opens repositories by the objects that describe them, each once per
// generation of its object.
type repos struct {
	objects store.Store
	clock   func() time.Time
	log     *slog.Logger

	mu   sync.Mutex
	open map[string]openRepo
}

type openRepo struct {
	generation int64
	repo       *repository.Repository
}

// named opens the repository of a BackupRepo; an empty name is the default one. It
// also gives the name.
func (r *repos) named(ctx context.Context, name string) (*repository.Repository, string, error) {
	obj, err := r.object(ctx, name)
	if err != nil {
		return nil, "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if have, ok := r.open[obj.Name]; ok && have.generation == obj.Generation {
		return have.repo, obj.Name, nil
	}
	repo, err := openRepository(ctx, obj, r.clock, r.log)
	if err != nil {
		return nil, obj.Name, fmt.Errorf("repository %s: %w", obj.Name, err)
	}
	if r.open == nil {
		r.open = map[string]openRepo{}
	}
	r.open[obj.Name] = openRepo{obj.Generation, repo}
	return repo, obj.Name, nil
}

func (r *repos) object(ctx context.Context, name string) (*v1alpha1.BackupRepo, error) {
	if name != "" {
		return store.Get[*v1alpha1.BackupRepo](ctx, r.objects, "", name)
	}
	all, err := store.List[*v1alpha1.BackupRepo](ctx, r.objects, "", nil)
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

// all opens every repository that can be opened; those that cannot are told in the
// error, beside the others.
func (r *repos) all(ctx context.Context) (map[string]*repository.Repository, error) {
	objs, err := store.List[*v1alpha1.BackupRepo](ctx, r.objects, "", nil)
	out := map[string]*repository.Repository{}
	errs := []error{err}
	for _, o := range objs {
		repo, name, err := r.named(ctx, o.Name)
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
func openRepository(ctx context.Context, o *v1alpha1.BackupRepo, clock func() time.Time, log *slog.Logger) (*repository.Repository, error) {
	place, err := openPlace(ctx, o)
	if err != nil {
		return nil, err
	}
	opt := repository.Options{Clock: clock}
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
			log.Warn("storage is asked again", "repository", o.Name, "error", e.Err)
		},
	})
	repo, err := repository.Open(ctx, patient, opt)
	if !errors.Is(err, repository.ErrNoRepository) {
		return repo, err
	}
	// put-if-absent is what everything rests upon: a place that overwrites is refused
	if err := blob.CheckPut(ctx, place); err != nil {
		return nil, err
	}
	return repository.Create(ctx, patient, opt)
}

func openPlace(ctx context.Context, o *v1alpha1.BackupRepo) (blob.Store, error) {
	if o.Spec.StorageProvider == v1alpha1.ProviderFilesystem {
		return fs.Create(o.Spec.Filesystem.Path)
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
