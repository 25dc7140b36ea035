// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes/ask"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/repos"
	"github.com/kbcli/kbcli/runtimes/store/kube"
)

// place is a container that runs kbcli.
type place struct{ namespace, pod, container string }

func (p place) String() string { return "pod " + p.namespace + "/" + p.pod }

// places are where a question about a cluster can be put, the best first: beside the
// primary, beside another server, in the operator. What reads much is done beside a
// standby if there is one.
func (r *Runtime) places(ctx context.Context, q ask.Question) ([]place, error) {
	var primary, others []place
	if q.Source.Cluster != "" {
		all, err := r.pods(ctx, q.Source.Namespace, q.Source.Cluster)
		if err != nil {
			return nil, err
		}
		for _, p := range all {
			if p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil {
				continue
			}
			at := place{p.Namespace, p.Name, names.ContainerAgent}
			if p.Labels[names.LabelRole] == names.RolePrimary {
				primary = append(primary, at)
			} else {
				others = append(others, at)
			}
		}
	}
	out := append(primary, others...)
	switch q.Topic {
	case ask.Verify, ask.History:
		out = append(others, primary...)
	case ask.Examine:
		if q.Source.Cluster != "" {
			return primary, nil // of that server itself
		}
	}
	operators, err := r.operators(ctx)
	if err != nil && !apierrors.IsForbidden(err) {
		return nil, err
	}
	for _, d := range operators {
		var l corev1.PodList
		err := r.api.get(ctx, &l, of(d.Namespace, "pods", ""), map[string]string{"labelSelector": names.LabelName + "=" + names.Operator})
		if unseen(err) != nil {
			return nil, err
		}
		for _, p := range l.Items {
			if p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
				out = append(out, place{p.Namespace, p.Name, names.ContainerOperator})
			}
		}
	}
	return out, nil
}

// NobodyError says that a question can be put nowhere.
type NobodyError struct {
	Source runtimes.Source
	// Unseen says that whoever asks may not look for the operator.
	Unseen bool
}

func (e *NobodyError) Error() string {
	who := "nobody can be asked: "
	if e.Source.Cluster != "" {
		who += "cluster " + e.Source.Cluster + " has no pod that runs, and "
	}
	if e.Unseen {
		return who + "you may not see the operator of KubeBlocks"
	}
	return who + "the operator of KubeBlocks does not run"
}

// NotAllowedError says that a question may be put nowhere. It wraps what the API server
// said.
type NotAllowedError struct {
	Namespace string // whose pods the first right is for
	Err       error
}

func (e *NotAllowedError) Error() string {
	return "you may not run commands in the pods of namespace " + e.Namespace + ": " + e.Err.Error()
}

func (e *NotAllowedError) Unwrap() error { return e.Err }

// OlderError says that the kbcli in a pod does not know a question.
type OlderError struct {
	Pod     string // "namespace/name"
	Release string // empty: it does not say
	Topic   string
}

func (e *OlderError) Error() string {
	release := ""
	if e.Release != "" {
		release = " (" + e.Release + ")"
	}
	return fmt.Sprintf("the kbcli in pod %s is older%s and cannot answer about %q", e.Pod, release, e.Topic)
}

// LostError says that an answer ended in its middle.
type LostError struct {
	Pod string
	Err error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("pod %s stopped answering in the middle: %v", e.Pod, e.Err)
}

func (e *LostError) Unwrap() error { return e.Err }

// ask puts a question whose answer is one.
func (r *Runtime) ask(ctx context.Context, q ask.Question) (ask.Answer, error) {
	return r.askInParts(ctx, q, func(ask.Answer) error { return nil })
}

// askInParts puts a question where it can be answered, hands all of the answer but the
// last part to part, and returns that. When ctx ends, or part has an error, the far side
// ends as well.
func (r *Runtime) askInParts(ctx context.Context, q ask.Question, part func(ask.Answer) error) (ask.Answer, error) {
	all, err := r.places(ctx, q)
	if err != nil {
		return ask.Answer{}, err
	}
	if len(all) == 0 {
		_, err := r.operators(ctx)
		return ask.Answer{}, &NobodyError{q.Source, apierrors.IsForbidden(err)}
	}
	var answer ask.Answer
	var failures []error
	for _, at := range all {
		a, err := r.put(ctx, at, q, part)
		var lost *LostError
		if err == nil || ctx.Err() != nil || errors.As(err, &lost) || a.Fault != nil && !elsewhere(err) {
			return a, err
		}
		answer, failures = a, append(failures, err)
	}
	return answer, worstOf(failures)
}

// elsewhere tells whether another place may know better: one with more keys, or newer.
func elsewhere(err error) bool {
	var unknown *runtimes.SourceNotFoundError
	var locked *repos.NotGivenError
	var older *OlderError
	return errors.As(err, &unknown) || errors.As(err, &locked) || errors.As(err, &older)
}

// worstOf is what to say where nobody answered: what one of them said, before that none
// may be asked, before that none can be reached.
func worstOf(failures []error) error {
	for _, err := range failures {
		if elsewhere(err) {
			return err
		}
	}
	for _, err := range failures {
		if apierrors.IsForbidden(err) {
			return err
		}
	}
	return errors.Join(failures...)
}

// put puts a question in one place.
func (r *Runtime) put(ctx context.Context, at place, q ask.Question, part func(ask.Answer) error) (ask.Answer, error) {
	q.Held = true
	body, err := json.Marshal(q)
	if err != nil {
		return ask.Answer{}, err
	}
	// the far side is told to end before the connection is
	sctx, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	asking, typing := io.Pipe()
	go hold(sctx, typing, append(body, '\n'))
	reading, printing := io.Pipe()
	said := &short{}
	ended := make(chan error, 1)
	go func() {
		err := r.stream(sctx, at, ask.Command, remotecommand.StreamOptions{Stdin: asking, Stdout: printing, Stderr: said})
		_ = printing.Close() // what reads sees the end
		ended <- err
	}()
	stop := context.AfterFunc(ctx, func() { _ = printing.CloseWithError(ctx.Err()) })
	a, whole, some, err := readAnswer(reading, part)
	stop()
	_ = typing.Close()
	_ = reading.Close() // what it still prints is nobody's
	var died error
	select {
	case died = <-ended:
	case <-time.After(farEnd):
		cut()
		died = <-ended
	}
	pod := at.namespace + "/" + at.pod
	var unknown *ask.UnknownTopicError
	switch {
	case errors.As(err, &unknown):
		return a, &OlderError{pod, a.Release, string(q.Topic)}
	case whole || err != nil:
		return a, err
	case died != nil && strings.Contains(said.String(), "unknown command"):
		return a, &OlderError{pod, "", string(q.Topic)}
	case some:
		return a, &LostError{pod, errors.Join(died, said.err())}
	case apierrors.IsForbidden(died):
		return a, &NotAllowedError{at.namespace, died}
	case died == nil:
		died = errors.New("it said nothing")
	}
	return a, fmt.Errorf("%s in %s: %w", strings.Join(ask.Command, " "), at, kube.Unreachable(errors.Join(died, said.err())))
}

// farEnd is how long the far side is given to end when nobody wants its answer any more.
const farEnd = 2 * time.Second

// hold types a question, and then that somebody waits for the answer.
func hold(ctx context.Context, to *io.PipeWriter, text []byte) {
	for {
		if _, err := to.Write(text); err != nil {
			return // nobody reads any more
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(ask.Beat):
		}
		text = []byte{'\n'}
	}
}

// longestLine bounds a line of an answer.
const longestLine = 64 << 20

// readAnswer hands all but the last line to part. whole tells whether the last line came,
// some whether any did.
func readAnswer(in io.Reader, part func(ask.Answer) error) (last ask.Answer, whole, some bool, err error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), longestLine)
	for lines.Scan() {
		a, err := ask.Read(lines.Bytes())
		if err != nil || !a.More {
			return a, err == nil, some, err
		}
		some = true
		if err := part(a); err != nil {
			return a, false, some, err
		}
	}
	return last, false, some, lines.Err()
}

// short keeps the beginning of what was said on stderr.
type short struct {
	mu    sync.Mutex
	words []byte
}

func (s *short) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.words = append(s.words, b[:min(len(b), 4096-len(s.words))]...)
	return len(b), nil
}

func (s *short) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.TrimSpace(string(s.words))
}

func (s *short) err() error {
	if s.String() == "" {
		return nil
	}
	return errors.New(s.String())
}

// stream runs a command in a container.
func (r *Runtime) stream(ctx context.Context, at place, command []string, o remotecommand.StreamOptions) error {
	req := r.api.client.Post().AbsPath(of(at.namespace, "pods", at.pod, "exec")).
		Param("container", at.container).Param("stdin", "true").Param("stdout", "true").Param("stderr", "true")
	for _, word := range command {
		req.Param("command", word)
	}
	over, err := remotecommand.NewWebSocketExecutor(r.config, http.MethodGet, req.URL().String())
	if err != nil {
		return err
	}
	plain, err := remotecommand.NewSPDYExecutor(r.config, http.MethodPost, req.URL())
	if err != nil {
		return err
	}
	runner, err := remotecommand.NewFallbackExecutor(over, plain, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return err
	}
	return runner.StreamWithContext(ctx, o)
}
