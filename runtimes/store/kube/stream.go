// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

const (
	// firstPause and longestPause are between two attempts to reach the server.
	firstPause, longestPause = 100 * time.Millisecond, 10 * time.Second
	// streamSeconds is how long one stream lasts, so that those of many watches move to
	// other servers in time. Each has up to as much again.
	streamSeconds = 300
)

// change is one object, or all of them.
type change struct {
	all   bool
	gone  bool
	texts []json.RawMessage
}

// source hears of changes from the server.
type source struct {
	s         *Store
	kind      v1alpha1.Kind
	namespace string
	version   string // everything up to it is known; empty when that has to be found out again
	changes   chan change
}

// run sends changes until ctx ends.
func (src *source) run(ctx context.Context) {
	pause, told := firstPause, false
	for {
		opened, err := src.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if opened {
			pause, told = firstPause, false
		}
		var status apierrors.APIStatus
		if errors.As(err, &status) {
			// Whatever the server has against it (410 Gone, a version from before it was
			// itself restored), with a new list there is nothing to object to.
			src.version = ""
		}
		if err != nil && !told && !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
			src.s.log.Warn("watch interrupted", "kind", src.kind.Name, "error", err)
			told = true
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		pause = min(2*pause, longestPause)
	}
}

func (src *source) send(ctx context.Context, c change) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case src.changes <- c:
		return nil
	}
}

// once lists if that is needed and then reads one stream to its end. Opened tells
// whether there was one.
func (src *source) once(ctx context.Context) (opened bool, err error) {
	if src.version == "" {
		texts, version, err := src.s.list(ctx, src.kind, src.namespace, nil)
		if err != nil {
			return false, err
		}
		if err := src.send(ctx, change{all: true, texts: texts}); err != nil {
			return false, err
		}
		src.version = version
	}
	stream, err := src.s.groups[src.kind.Group].Get().
		NamespaceIfScoped(src.namespace, src.namespace != "").Resource(src.kind.Plural).
		Param("watch", "true").Param("resourceVersion", src.version).Param("allowWatchBookmarks", "true").
		Param("timeoutSeconds", strconv.Itoa(streamSeconds+rand.N(streamSeconds))).
		Stream(ctx)
	if err != nil {
		return false, ofServer(src.kind, err)
	}
	defer stream.Close()
	frames := json.NewDecoder(stream)
	for {
		var f struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		switch err := frames.Decode(&f); {
		case errors.Is(err, io.EOF):
			return true, nil // its time was over
		case err != nil:
			return true, fmt.Errorf("watch %s: %w", src.kind.Resource(), err)
		}
		switch f.Type {
		case "ADDED", "MODIFIED", "DELETED":
			if err := src.send(ctx, change{gone: f.Type == "DELETED", texts: []json.RawMessage{f.Object}}); err != nil {
				return true, err
			}
		case "BOOKMARK":
		case "ERROR":
			status := metav1.Status{}
			if err := json.Unmarshal(f.Object, &status); err != nil {
				return true, fmt.Errorf("watch %s: %w", src.kind.Resource(), err)
			}
			return true, apierrors.FromObject(&status)
		default:
			return true, fmt.Errorf("watch %s: the server says %q", src.kind.Resource(), f.Type)
		}
		src.version = head(src.kind, f.Object).version
	}
}
