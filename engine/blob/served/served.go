// SPDX-License-Identifier: Apache-2.0

package served

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/stall"
)

const (
	dialTime  = 10 * time.Second
	stallTime = time.Minute // without a byte; an fsync of a slow disk is part of it
	// waitFor is the size from which a Put asks whether the object is there before it sends
	// its bytes.
	waitFor = 64 << 10
)

// Config of a Store.
type Config struct {
	Name     string // of the place, for people
	Endpoint string // HOST:PORT
	// Access is asked at each connection and each request.
	Access func() (Access, error)
}

// Store is a place that a server has. It asks nothing until it is used.
type Store struct {
	name   string
	base   url.URL
	access func() (Access, error)
	http   *http.Client
	pool   *http.Transport
}

// Open makes a Store. It connects to nobody yet.
func Open(c Config) (*Store, error) {
	if _, _, err := net.SplitHostPort(c.Endpoint); err != nil {
		return nil, fmt.Errorf("endpoint %q: %w", c.Endpoint, err)
	}
	s := &Store{name: c.Name, base: url.URL{Scheme: "https", Host: c.Endpoint}, access: c.Access}
	s.pool = &http.Transport{
		DialTLSContext: s.dial, MaxIdleConnsPerHost: 32, IdleConnTimeout: time.Minute,
		ExpectContinueTimeout: stallTime, DisableCompression: true,
	}
	s.http = &http.Client{Transport: s.pool, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s, nil
}

// Close lets go of connections that nobody uses.
func (s *Store) Close() { s.pool.CloseIdleConnections() }

func (s *Store) String() string { return s.name }

func (s *Store) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	a, err := s.access()
	if err != nil {
		return nil, err
	}
	config, err := a.clientTLS()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: config}
	return d.DialContext(ctx, network, addr)
}

// call is a request that is under way: cancel ends it, w watches over it.
type call struct {
	*http.Response
	w      *stall.Watch
	cancel context.CancelFunc
}

func (c *call) end() {
	c.w.Stop()
	c.Body.Close()
	c.cancel()
}

// ask sends a request. An answer that is no success is an error.
func (s *Store) ask(ctx context.Context, method, path string, query url.Values, body blob.Body, header ...string) (*call, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a, err := s.access()
	if err != nil {
		return nil, err
	}
	to := s.base
	to.Path, to.RawQuery = path, query.Encode()
	rctx, cancel := context.WithCancel(ctx)
	w := stall.New(cancel, stallTime)
	w.Start()
	give := func(err error) (*call, error) {
		w.Stop()
		err = w.Explain(err)
		cancel()
		return nil, err
	}
	var sent *stall.Sent
	var from io.Reader
	if body != nil && body.Size() > 0 {
		sent = stall.NewSent(body, body.Size(), w)
		from = sent
	}
	r, err := http.NewRequestWithContext(rctx, method, to.String(), from)
	if err != nil {
		return give(err)
	}
	r.Header.Set("Authorization", "Bearer "+a.Token)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if body != nil {
		r.ContentLength = body.Size()
		if r.ContentLength >= waitFor {
			r.Header.Set("Expect", "100-continue")
		}
	}
	resp, err := s.http.Do(r)
	var unread error
	if sent != nil {
		if unread = sent.End(); err == nil {
			w.Start() // of what the server answers
		}
	}
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		if unread != nil {
			return give(unread)
		}
		_, err = give(err)
		return nil, failed(ctx, err)
	}
	c := &call{resp, w, cancel}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		defer c.end()
		return nil, refused(resp)
	}
	return c, nil
}

func objectPath(kind, key string) string { return "/v1/" + kind + "/" + key }

func about(verb blob.Verb, key string, err error) error {
	var said *fault
	if errors.As(err, &said) {
		return err
	}
	return fmt.Errorf("%s %s: %w", verb, key, err)
}

// Stat implements blob.Reader.
func (s *Store) Stat(ctx context.Context, key string) (blob.Info, error) {
	if err := blob.CheckKey(key); err != nil {
		return blob.Info{}, fmt.Errorf("%s: %w", blob.VerbStat, err)
	}
	c, err := s.ask(ctx, http.MethodGet, objectPath("stat", key), nil, nil)
	if err != nil {
		return blob.Info{}, about(blob.VerbStat, key, err)
	}
	defer c.end()
	var i blob.Info
	if err := json.NewDecoder(c.Body).Decode(&i); err != nil {
		return blob.Info{}, about(blob.VerbStat, key, failed(ctx, c.w.Explain(err)))
	}
	return i, nil
}

// Get implements blob.Reader.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := blob.CheckKey(key); err != nil {
		return nil, fmt.Errorf("%s: %w", blob.VerbGet, err)
	}
	if offset < 0 || length < -1 {
		return nil, fmt.Errorf("get %s: range of %d bytes at %d", key, length, offset)
	}
	c, err := s.ask(ctx, http.MethodGet, objectPath("objects", key), url.Values{
		"offset": {strconv.FormatInt(offset, 10)}, "length": {strconv.FormatInt(length, 10)},
	}, nil)
	if err != nil {
		return nil, about(blob.VerbGet, key, err)
	}
	c.w.Stop()
	return &download{call: c, ctx: ctx, key: key}, nil
}

// Put implements blob.Store.
func (s *Store) Put(ctx context.Context, key string, body blob.Body) error {
	return s.put(ctx, blob.VerbPut, key, body, "If-None-Match", "*")
}

// Replace implements blob.Store.
func (s *Store) Replace(ctx context.Context, key string, body blob.Body) error {
	return s.put(ctx, blob.VerbReplace, key, body)
}

func (s *Store) put(ctx context.Context, verb blob.Verb, key string, body blob.Body, header ...string) error {
	if err := blob.CheckKey(key); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	c, err := s.ask(ctx, http.MethodPut, objectPath("objects", key), nil, body, header...)
	if err != nil {
		return about(verb, key, err)
	}
	c.end()
	return nil
}

// Delete implements blob.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := blob.CheckKey(key); err != nil {
		return fmt.Errorf("%s: %w", blob.VerbDelete, err)
	}
	c, err := s.ask(ctx, http.MethodDelete, objectPath("objects", key), nil, nil)
	if err != nil {
		return about(blob.VerbDelete, key, err)
	}
	c.end()
	return nil
}

// List implements blob.Lister.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[blob.Info, error] {
	return s.ListAfter(ctx, prefix, "")
}

// line is one of a list: an object, or why it ends early.
type line struct {
	*blob.Info
	Fault string `json:",omitempty"`
	Words string `json:",omitempty"`
}

// ListAfter implements blob.Lister.
func (s *Store) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		c, err := s.ask(ctx, http.MethodGet, "/v1/list", url.Values{"prefix": {prefix}, "after": {after}}, nil)
		if err != nil {
			yield(blob.Info{}, about(blob.VerbList, prefix, err))
			return
		}
		defer c.end()
		lines := json.NewDecoder(bufio.NewReader(c.Body))
		for last := after; ; {
			var l line
			c.w.Start()
			err := lines.Decode(&l)
			c.w.Stop()
			switch {
			case err == io.EOF:
				return
			case err != nil:
				yield(blob.Info{}, about(blob.VerbList, prefix, failed(ctx, c.w.Explain(err))))
				return
			case l.Info == nil:
				yield(blob.Info{}, about(blob.VerbList, prefix, faultIn(l.Fault, l.Words)))
				return
			case l.Key <= last:
				yield(blob.Info{}, fmt.Errorf("list %s: the server lists %s after %s, which is not in order", prefix, l.Key, last))
				return
			}
			if err := ctx.Err(); err != nil {
				yield(blob.Info{}, about(blob.VerbList, prefix, err))
				return
			}
			last = l.Key
			if !yield(*l.Info, nil) {
				return
			}
		}
	}
}

// Space is how large a place is, and how many bytes of it are left to be written.
type Space struct{ Capacity, Free int64 }

// Space asks for that of the place.
func (s *Store) Space(ctx context.Context) (Space, error) {
	c, err := s.ask(ctx, http.MethodGet, "/v1/space", nil, nil)
	if err != nil {
		return Space{}, fmt.Errorf("ask for the space that is left: %w", err)
	}
	defer c.end()
	var x Space
	if err := json.NewDecoder(c.Body).Decode(&x); err != nil {
		return Space{}, fmt.Errorf("ask for the space that is left: %w", failed(ctx, c.w.Explain(err)))
	}
	return x, nil
}
