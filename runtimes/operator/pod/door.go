// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// The server's container has no key of a repository and no account of Kubernetes that it
// could ask with. What its server and Patroni need of the agent they ask at a socket that
// both containers see:
//
//	GET /wal/NAME    the file, or 404: the standby goes on without it; 503 where it is not
//	                 known, and 424 if it must not go on without it
//	POST /promote    204, or 409 and why this server must not be the primary

// doorPath is where the server's container asks the agent: both see the directory.
const doorPath = specs.SocketDirectory + "/kbcli.sock"

const (
	// askWAL is how long a standby waits for a file: where the repository does not answer
	// it goes on with what it has.
	askWAL = 5 * time.Second
	// askAllWAL is the same for one that must not be the primary without it.
	askAllWAL = 40 * time.Second
	// askPromotion bounds the answer to Patroni, which keeps the leader's lock meanwhile.
	askPromotion = 100 * time.Second
	// agentStarts is how long an agent that is not there may take to come.
	agentStarts = 20 * time.Second
)

// syncMark is in the spool of a server whose commits wait for the repository: without an
// agent nobody knows whether it has all of them.
const syncMark = "commits-wait"

// open answers at the door until ctx ends.
func (k *keeper) open(ctx context.Context) (done <-chan struct{}, err error) {
	if err := os.Remove(doorPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err // of a container that was here before
	}
	l, err := net.Listen("unix", doorPath)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /wal/{name}", k.answerWAL)
	mux.HandleFunc("POST /promote", k.answerPromotion)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			k.Log.Error("the server's container is not answered any more", "error", err)
		}
	}()
	context.AfterFunc(ctx, func() { _ = s.Close() }) // with ctx all answers end too
	return ended, nil
}

func (k *keeper) answerWAL(w http.ResponseWriter, r *http.Request) {
	limit, unknown := askWAL, http.StatusServiceUnavailable
	if k.mustHaveAll() {
		limit, unknown = askAllWAL, http.StatusFailedDependency
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	name := r.PathValue("name")
	b, err := k.file(ctx, name)
	switch {
	case err == nil:
		k.Log.Info("a standby is given what it lacks", "file", name)
		w.Header().Set("Content-Length", strconv.Itoa(len(b))) // so that half of it is an error
		_, err = w.Write(b)
	case errors.Is(err, archive.ErrNotSupplied):
		http.Error(w, err.Error(), http.StatusNotFound)
		if err == archive.ErrNotSupplied { //nolint:errorlint // one with more words is worth a line
			return
		}
	default:
		http.Error(w, err.Error(), unknown)
	}
	if err != nil {
		k.Log.Warn("a standby that lacks WAL is not given it", "file", name, "error", err)
	}
}

func (k *keeper) answerPromotion(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), askPromotion-5*time.Second)
	defer cancel()
	if err := k.mayPromote(ctx); err != nil {
		k.Log.Warn("this server is not made the primary", "error", err)
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func atDoor(door string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", door)
	}}}
}

// StandbyWAL is restore_command: it writes a file that the server asks for to path, and
// gives the exit code, one of archive.Await's. Whatever stands in the way is no reason to
// hold a standby up; a server that becomes the primary and may have to have the file is
// ended, and started again by Patroni.
func StandbyWAL(ctx context.Context, name, path string) (code int, err error) {
	return standbyWAL(ctx, doorPath, name, path)
}

func standbyWAL(ctx context.Context, door, name, path string) (code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, askAllWAL+5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/wal/"+name, nil)
	if err != nil {
		return archive.AwaitAbsent, err
	}
	res, err := atDoor(door).Do(req)
	if err != nil {
		return archive.AwaitAbsent, err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return archive.AwaitAbsent, nil
	case http.StatusFailedDependency:
		return archive.AwaitBroken, said(res)
	default:
		return archive.AwaitAbsent, said(res)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return archive.AwaitBroken, err
	}
	// a file of the wrong size ends the server: one that came in part is none, and the
	// agent that ended in the middle may be back the next time
	_, err = io.Copy(f, res.Body)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return archive.AwaitAbsent, errors.Join(err, os.Remove(path))
	}
	return archive.AwaitFound, nil
}

// BeforePromotion is Patroni's pre_promote. An error says why the server must not become
// the primary. Without an agent to ask it may, unless commits wait for the repository.
func BeforePromotion(ctx context.Context) error {
	return beforePromotion(ctx, doorPath, filepath.Join(specs.SpoolDirectory, syncMark), agentStarts)
}

func beforePromotion(ctx context.Context, door, mark string, starts time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, askPromotion)
	defer cancel()
	for began := time.Now(); ; {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent/promote", nil)
		if err != nil {
			return err
		}
		res, err := atDoor(door).Do(req)
		if err == nil {
			defer res.Body.Close()
			if res.StatusCode == http.StatusNoContent {
				return nil
			}
			return said(res)
		}
		if time.Since(began) > starts || ctx.Err() != nil {
			if _, serr := os.Stat(mark); errors.Is(serr, fs.ErrNotExist) {
				return nil
			}
			return fmt.Errorf("commits wait for the repository, and nobody is there to ask whether this server has all of them: %w", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// said is what the agent has against it.
func said(res *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	return errors.Join(errors.New(strings.TrimSpace(string(b))), err)
}
