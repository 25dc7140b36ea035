// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestImpatient: a server that says nothing is given up, one that talks for long is not,
// and whoever asks may give up before.
func TestImpatient(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/mute" {
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(w, "a")
		w.(http.Flusher).Flush()
		<-release
		_, _ = io.WriteString(w, "b")
	}))
	defer s.Close()
	const wait = 200 * time.Millisecond
	client := &http.Client{Transport: impatient{http.DefaultTransport, wait}}
	var silent *SilentError
	if _, err := client.Get(s.URL + "/mute"); !errors.As(err, &silent) || !strings.Contains(err.Error(), "did not answer within 200ms") {
		t.Errorf("%v", err)
	}
	resp, err := client.Get(s.URL + "/talks")
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(2*wait, func() { close(release) })
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "ab" {
		t.Errorf("%q, %v", b, err)
	}
	resp.Body.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/mute", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Do(req); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
