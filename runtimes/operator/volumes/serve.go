// SPDX-License-Identifier: Apache-2.0

package volumes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/blob/served"
)

// Volume says what Serve hands out, and to whom.
type Volume struct {
	Directory string // a folder of the volume; it is made
	Address   string // to listen on
	Access    string // a file, read at each connection
	Clock     func() time.Time
	Log       *slog.Logger
}

// InPod is that of the pod of a repository.
func InPod() Volume {
	return Volume{Directory: place, Address: fmt.Sprintf(":%d", port), Access: accessDirectory + "/" + AccessKey}
}

const (
	sweepInterval = time.Hour
	sweepAge      = 48 * time.Hour // no writer lives so long
	farewell      = 20 * time.Second
)

// Serve hands out a volume until ctx ends; what is being written then has a while to end.
func Serve(ctx context.Context, v Volume) error {
	access := func() (served.Access, error) {
		b, err := os.ReadFile(v.Access)
		if err != nil {
			return served.Access{}, err
		}
		return served.ParseAccess(b)
	}
	if _, err := access(); err != nil {
		return err
	}
	store, err := fs.Create(v.Directory)
	if err != nil {
		return err
	}
	handler := (&served.Server{Store: store, Access: access, Space: func() (served.Space, error) { return spaceOf(v.Directory) }, Log: v.Log}).Handler()
	mux := http.NewServeMux()
	mux.Handle("/v1/", handler)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat(v.Directory); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	l, err := net.Listen("tcp", v.Address)
	if err != nil {
		return err
	}
	s := &http.Server{
		Handler: mux, TLSConfig: served.ServerTLS(access), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(v.Log.Handler(), slog.LevelDebug), // whoever knocks may write there
	}
	done := make(chan error, 1)
	go func() { done <- s.ServeTLS(l, "", "") }()
	v.Log.Info("the volume is served", "directory", v.Directory, "address", l.Addr().String())
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		if err := store.Sweep(ctx, v.Clock().Add(-sweepAge)); err != nil && ctx.Err() == nil {
			v.Log.Warn("what writers left is not removed", "error", err)
		}
		select {
		case err := <-done:
			return err
		case <-tick.C:
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
			defer cancel()
			err := s.Shutdown(end)
			if errors.Is(err, context.DeadlineExceeded) {
				err = s.Close()
			}
			<-done
			return err
		}
	}
}

// spaceOf asks the file system.
func spaceOf(dir string) (served.Space, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return served.Space{}, fmt.Errorf("ask for the space in %s: %w", dir, err)
	}
	return served.Space{Capacity: int64(s.Blocks) * s.Bsize, Free: int64(s.Bavail) * s.Bsize}, nil
}
