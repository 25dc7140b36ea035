// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	kubeconfig "k8s.io/client-go/tools/clientcmd/api"
)

// Context is one of a kubeconfig.
type Context struct {
	Name      string
	Server    string // the URL of the API server
	Namespace string // empty where none is set
}

// Contexts lists those of the kubeconfig files, by name. Of files that are not there
// nothing is said, as kubectl does; of two contexts with one name the first counts.
func Contexts(files []string) ([]Context, error) {
	c, err := load(files)
	if err != nil {
		return nil, err
	}
	var all []Context
	for _, name := range slices.Sorted(maps.Keys(c.Contexts)) {
		k := Context{Name: name, Namespace: c.Contexts[name].Namespace}
		if cluster := c.Clusters[c.Contexts[name].Cluster]; cluster != nil {
			k.Server = cluster.Server
		}
		all = append(all, k)
	}
	return all, nil
}

func load(files []string) (*kubeconfig.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: files}
	c, err := rules.Load()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	return c, nil
}

// restConfig is how the API server of a context is reached.
func restConfig(files []string, context, agent string) (*rest.Config, error) {
	c, err := load(files)
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.NewNonInteractiveClientConfig(*c, context, nil, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("context %q of the kubeconfig: %w", context, err)
	}
	config.UserAgent = agent
	config.WarningHandler = rest.NoWarnings{}
	if config.Dial == nil {
		config.Dial = (&net.Dialer{Timeout: dialPatience, KeepAlive: 30 * time.Second}).DialContext
	}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return impatient{next, answerPatience} })
	return config, nil
}

// How long an API server may take to take a connection, and to begin an answer.
const (
	dialPatience   = 8 * time.Second
	answerPatience = 30 * time.Second
)

// impatient gives up on a server that does not begin to answer. What follows may take as
// long as it takes: watches and logs go on for hours.
type impatient struct {
	next http.RoundTripper
	wait time.Duration
}

// SilentError says that a server took a connection and does not answer.
type SilentError struct {
	Host string
	For  time.Duration
}

func (e *SilentError) Error() string {
	return fmt.Sprintf("the API server at %s did not answer within %s", e.Host, e.For)
}

func (i impatient) RoundTrip(req *http.Request) (*http.Response, error) {
	silent := &SilentError{req.URL.Host, i.wait}
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(i.wait, func() { cancel(silent) })
	resp, err := i.next.RoundTrip(req.WithContext(ctx))
	if !timer.Stop() && err != nil && req.Context().Err() == nil {
		err = silent
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = &closing{resp.Body, func() { cancel(nil) }}
	return resp, nil
}

// WrappedRoundTripper lets client-go find what is beneath.
func (i impatient) WrappedRoundTripper() http.RoundTripper { return i.next }

// closing is a body that frees what its request held.
type closing struct {
	io.ReadCloser
	free func()
}

func (c *closing) Close() error {
	defer c.free()
	return c.ReadCloser.Close()
}
