// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository/chapter"
)

// FormatVersion is what this package reads and writes.
const FormatVersion = 1

// ErrNoRepository says that the place holds no repository.
var ErrNoRepository = errors.New("there is no repository")

// Repository is one place and what is in it.
type Repository struct {
	store      blob.Store
	id         string
	recipients []age.Recipient
	names      []string // the recipients, as text
	identities []age.Identity
	clock      func() time.Time
	snapshots  func(*Manifest) error
	copies     copies
	// of VolumeSnapshots
	removeSnapshot func(ctx context.Context, lineage string, m *Manifest) error
	known          bool // the copies are read
}

// Options of Create and Open.
type Options struct {
	// Recipients seal what is written: age public keys ("age1…"). Only Create
	// looks at them; Open takes those of the repository.
	Recipients []string
	// Identities open what is sealed: the text of an age identity file.
	// Empty: a sealed repository can be written and not read.
	Identities string
	// Copies is a directory in which a sealed repository that is open without identities
	// keeps the lists of files and WAL indexes that are written through it, in the clear,
	// for Lineage.Known. Empty: it keeps none.
	Copies string
	// Clock is asked for the present.
	Clock func() time.Time
	// Snapshots says whether the files of a snapshot can be reached: nil if they
	// can. Without it none can.
	Snapshots func(*Manifest) error
	// RemoveSnapshot removes the VolumeSnapshot of a backup of a lineage; nil if it is
	// not there. Without it none can be removed.
	RemoveSnapshot func(ctx context.Context, lineage string, m *Manifest) error
}

type repositoryDoc struct {
	Format     int       `json:"format"`
	ID         string    `json:"id"`
	Created    time.Time `json:"created"`
	Recipients []string  `json:"recipients,omitempty"`
}

// Create lays out an empty repository. If one is there already with the same
// recipients, or none are given, it is opened; with others, that is an error.
func Create(ctx context.Context, store blob.Store, o Options) (*Repository, error) {
	if _, err := parseRecipients(o.Recipients); err != nil {
		return nil, err
	}
	doc := repositoryDoc{Format: FormatVersion, ID: randomID(16), Created: o.Clock().UTC().Truncate(time.Microsecond), Recipients: o.Recipients}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	r := &Repository{store: store, clock: o.Clock, snapshots: o.Snapshots, removeSnapshot: o.RemoveSnapshot}
	sealed, err := r.seal(KindRepository, "repository", b, 0)
	if err != nil {
		return nil, err
	}
	if err := store.Put(ctx, "repository", sealed); err != nil && !errors.Is(err, blob.ErrExist) {
		return nil, fmt.Errorf("create repository in %s: %w", store, err)
	}
	r, err = Open(ctx, store, o)
	if err != nil {
		return nil, err
	}
	if len(o.Recipients) > 0 && !slices.Equal(slices.Sorted(slices.Values(o.Recipients)), slices.Sorted(slices.Values(r.names))) {
		return nil, fmt.Errorf("the repository in %s is sealed to other recipients than those given", store)
	}
	return r, nil
}

// Open opens the repository in store, or fails with ErrNoRepository.
func Open(ctx context.Context, store blob.Store, o Options) (*Repository, error) {
	r := &Repository{store: store, clock: o.Clock, snapshots: o.Snapshots, removeSnapshot: o.RemoveSnapshot, copies: copies{o.Copies}}
	b, err := r.get(ctx, KindRepository, "repository")
	if errors.Is(err, blob.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrNoRepository, store)
	}
	if err != nil {
		return nil, fmt.Errorf("open repository in %s: %w", store, err)
	}
	var doc repositoryDoc
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, &CorruptError{"repository", err.Error()}
	}
	if doc.Format != FormatVersion {
		return nil, fmt.Errorf("the repository in %s has format %d, this kbcli reads %d: use a newer kbcli", store, doc.Format, FormatVersion)
	}
	r.id, r.names = doc.ID, doc.Recipients
	if r.recipients, err = parseRecipients(doc.Recipients); err != nil {
		return nil, &CorruptError{"repository", err.Error()}
	}
	if o.Identities != "" {
		if r.identities, err = age.ParseIdentities(strings.NewReader(o.Identities)); err != nil {
			// age quotes the line it does not understand, which may be a secret
			return nil, errors.New("the identity given is not an age identity (AGE-SECRET-KEY-1…)")
		}
	}
	return r, nil
}

func parseRecipients(names []string) ([]age.Recipient, error) {
	if len(names) == 0 {
		return nil, nil
	}
	var out []age.Recipient
	for _, name := range names {
		rs, err := age.ParseRecipients(strings.NewReader(name))
		if err == nil && (len(rs) != 1 || strings.TrimSpace(name) != name) {
			err = errors.New("it is not one age public key")
		}
		if err != nil {
			return nil, fmt.Errorf("recipient %q: %w", name, err)
		}
		out = append(out, rs...)
	}
	return out, nil
}

// ID is the random name the repository was created with.
func (r *Repository) ID() string { return r.id }

// Store is the place the repository is in.
func (r *Repository) Store() blob.Store { return r.store }

// Sealed tells whether data is sealed.
func (r *Repository) Sealed() bool { return len(r.recipients) > 0 }

// Readable tells whether data can be read back with what Open was given. It does
// not try the identity.
func (r *Repository) Readable() bool { return !r.Sealed() || len(r.identities) > 0 }

func randomID(n int) string {
	b := make([]byte, (n+1)/2)
	if _, err := io.ReadFull(rand.Reader, b); err != nil {
		panic(err) // crypto/rand does not fail on the systems we run on
	}
	return hex.EncodeToString(b)[:n]
}

// LineageInfo says whose history a lineage holds.
type LineageInfo struct {
	ID          string         `json:"id"`
	Namespace   string         `json:"namespace"`
	Cluster     string         `json:"cluster"`
	SystemID    pg.SystemID    `json:"systemIdentifier"`
	Major       int            `json:"major"`
	SegmentSize pg.SegmentSize `json:"walSegmentSize"`
	Created     time.Time      `json:"created"`
	// ChapterSegments is how many segments make one chapter; 0 is 4 GiB of them.
	ChapterSegments uint64 `json:"chapterSegments,omitempty"`
}

// valid tells whether segments and chapters have sizes that can be.
func (i *LineageInfo) valid() bool {
	return i.SegmentSize.Valid() && (i.ChapterSegments == 0 || chapter.PerLog(i.SegmentSize)%i.ChapterSegments == 0)
}

// lineageKey is of a lineage's description. It lies outside its folder, so that
// lineages are listed without listing what is in them.
func lineageKey(id string) string { return "lineage/" + id }

func (l *Lineage) descriptionKey() string { return lineageKey(l.info.ID) }

// checkLineageID refuses what would not be one part of a key.
func checkLineageID(id string) error {
	if strings.Contains(id, "/") {
		return fmt.Errorf("lineage %q has a slash", id)
	}
	return blob.CheckKey(lineageKey(id))
}

// CreateLineage begins a line of history for a cluster; its ID is made here.
func (r *Repository) CreateLineage(ctx context.Context, info LineageInfo) (*Lineage, error) {
	if !info.SegmentSize.Valid() {
		return nil, fmt.Errorf("WAL segment size %d is not a power of two from 1 MiB to 1 GiB", info.SegmentSize)
	}
	if !info.valid() {
		return nil, fmt.Errorf("4 GiB of WAL are no whole number of chapters of %d segments", info.ChapterSegments)
	}
	info.ID = info.Cluster + "-" + randomID(12)
	if err := checkLineageID(info.ID); err != nil {
		return nil, err
	}
	info.Created = r.clock().UTC().Truncate(time.Microsecond)
	b, err := json.Marshal(info)
	if err != nil {
		return nil, err
	}
	l := &Lineage{repo: r, info: info}
	if err := r.put(ctx, KindLineage, l.descriptionKey(), b, 0); err != nil {
		return nil, fmt.Errorf("create lineage %s: %w", info.ID, err)
	}
	return l, nil
}

// Lineage opens one line of history by its ID, or fails with blob.ErrNotExist.
func (r *Repository) Lineage(ctx context.Context, id string) (*Lineage, error) {
	if err := checkLineageID(id); err != nil {
		return nil, err
	}
	l := &Lineage{repo: r, info: LineageInfo{ID: id}}
	b, err := r.get(ctx, KindLineage, l.descriptionKey())
	if err != nil {
		return nil, fmt.Errorf("open lineage %s: %w", id, err)
	}
	if err := json.Unmarshal(b, &l.info); err != nil {
		return nil, &CorruptError{lineageKey(id), err.Error()}
	}
	if l.info.ID != id || !l.info.valid() {
		return nil, &CorruptError{lineageKey(id), "it describes another lineage"}
	}
	return l, nil
}

// Lineages opens all lines of history, oldest first. One whose description is
// damaged is left out and named in the error, a *CorruptError, beside the others;
// any other error comes alone.
func (r *Repository) Lineages(ctx context.Context) ([]*Lineage, error) {
	var out []*Lineage
	var errs []error
	prefix := lineageKey("")
	for info, err := range r.store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list lineages: %w", err)
		}
		l, err := r.Lineage(ctx, strings.TrimPrefix(info.Key, prefix))
		var corrupt *CorruptError
		switch {
		case errors.Is(err, blob.ErrNotExist): // destroyed meanwhile
		case errors.As(err, &corrupt):
			errs = append(errs, err)
		case err != nil:
			return nil, err
		default:
			out = append(out, l)
		}
	}
	sortByCreated(out)
	return out, errors.Join(errs...)
}
