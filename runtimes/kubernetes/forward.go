// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// tunnel reaches one port of one pod by the port-forward protocol of the API server. It
// opens no port on this machine.
type tunnel struct {
	r              *Runtime
	namespace, pod string
	port           int
}

// Dial opens a connection. It ends when the pod does.
func (t tunnel) Dial(ctx context.Context) (net.Conn, error) {
	type opened struct {
		conn net.Conn
		err  error
	}
	done := make(chan opened, 1)
	go func() {
		conn, err := t.open()
		done <- opened{conn, err}
	}()
	select {
	case o := <-done:
		return o.conn, o.err
	case <-ctx.Done():
		go func() { // the dialer knows no context
			if o := <-done; o.conn != nil {
				o.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

func (t tunnel) open() (net.Conn, error) {
	url := t.r.api.client.Post().AbsPath(of(t.namespace, "pods", t.pod, "portforward")).URL()
	transport, upgrader, err := spdy.RoundTripperFor(t.r.config)
	if err != nil {
		return nil, t.because(err)
	}
	over, err := portforward.NewSPDYOverWebsocketDialer(url, t.r.config)
	if err != nil {
		return nil, t.because(err)
	}
	// WebSockets pass more proxies; older servers know SPDY alone.
	dialer := portforward.NewFallbackDialer(over, spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, url),
		func(err error) bool { return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err) })
	streams, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, t.because(err)
	}
	header := http.Header{}
	header.Set(corev1.PortHeader, strconv.Itoa(t.port))
	header.Set(corev1.PortForwardRequestIDHeader, "0")
	header.Set(corev1.StreamType, corev1.StreamTypeError)
	faults, err := streams.CreateStream(header)
	if err != nil {
		return nil, t.because(errors.Join(err, streams.Close()))
	}
	// Nothing is ever written to it.
	if err := faults.Close(); err != nil {
		return nil, t.because(errors.Join(err, streams.Close()))
	}
	header.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := streams.CreateStream(header)
	if err != nil {
		return nil, t.because(errors.Join(err, streams.Close()))
	}
	return newForwarded(t, streams, data, faults), nil
}

func (t tunnel) because(err error) error {
	return fmt.Errorf("reach pod %s/%s: %w", t.namespace, t.pod, err)
}

// forwarded is a connection through a tunnel. The streams have no deadlines, and a pipe
// in memory has.
type forwarded struct {
	net.Conn
	close func() error

	mu    sync.Mutex
	fault error
}

func newForwarded(t tunnel, streams httpstream.Connection, data, faults httpstream.Stream) *forwarded {
	near, far := net.Pipe()
	f := &forwarded{Conn: near, close: sync.OnceValue(streams.Close)}
	end := func() {
		_ = far.Close() // both only tell the other side that it is over
		_ = f.close()
	}
	go func() {
		defer end()
		_, _ = io.Copy(far, data) // how it ended is on the stream of faults
	}()
	go func() {
		defer end()
		_, _ = io.Copy(data, far)
	}()
	go func() {
		words, err := io.ReadAll(io.LimitReader(faults, 4096))
		if err == nil && len(words) > 0 {
			f.mu.Lock()
			f.fault = t.because(errors.New(strings.TrimSpace(string(words))))
			f.mu.Unlock()
			end()
		}
	}()
	return f
}

// Read says what the other side had against it, where that is known.
func (f *forwarded) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if err != nil && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe)) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.fault != nil {
			err = f.fault
		}
	}
	return n, err
}

func (f *forwarded) Close() error { return errors.Join(f.Conn.Close(), f.close()) }
