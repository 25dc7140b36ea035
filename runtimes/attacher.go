// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"strings"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
)

// Attacher is a Runtime that can protect a server which somebody else runs.
type Attacher interface {
	// CheckAttach looks whether the server that c.Spec.Local names can be
	// protected, and changes nothing. It fills what the server itself says into c:
	// the data directory and the version. What stands in the way are findings that
	// fail; the error is for what could not be looked at.
	//
	// was is the cluster as it is attached already, and nil for a new one. Then the
	// server has to be the same; and what c leaves out of how to connect is as it was,
	// but for where the server of the data directory listens.
	CheckAttach(ctx context.Context, c, was *v1alpha1.Cluster) ([]checkup.Finding, error)
}

// CheckSameServer is the check of CheckAttach that a cluster which is attached already
// stays what it is.
const CheckSameServer = "same-server"

// Detacher is a Runtime that can let go of a server it was attached to.
type Detacher interface {
	// CheckDetach tells whether the server answers, so that nothing of kbcli's has to
	// stay there.
	CheckDetach(ctx context.Context, c *v1alpha1.Cluster) error

	// Leftovers are the statements that take away what kbcli made on the server, for
	// somebody to run there who can reach it.
	Leftovers(ctx context.Context, c *v1alpha1.Cluster) ([]string, error)
}

// AnnotationLeave on a Cluster that is deleted says how its server is left: "force"
// waits neither for the repository nor for the server.
const AnnotationLeave = "apps.kubeblocks.io/leave"

// AnnotationConnect on an attached Cluster is ConnectFollows where nobody said how its
// server is reached: it is reached where its data directory says, also when that changes.
const (
	AnnotationConnect = "apps.kubeblocks.io/connect"
	ConnectFollows    = "follows-data-directory"
)

// RunningServer is a PostgreSQL on this machine that could be attached.
type RunningServer struct {
	Name          string // a proposal for the cluster's
	DataDirectory string // empty when it may not be seen
	Connect       string
	Version       string // "15"; empty when not known
}

// WhichServerError says that nobody said which server to attach.
type WhichServerError struct{ Found []RunningServer }

func (e *WhichServerError) Error() string {
	if len(e.Found) == 0 {
		return "no server was named, and none was found running on this machine"
	}
	return "no server was named"
}

// Flags are those of `cluster attach` that name the server.
func (s RunningServer) Flags() string {
	if s.DataDirectory != "" {
		return "--data-directory " + quoted(s.DataDirectory)
	}
	return "--connect " + quoted(s.Connect)
}

// quoted is a word for a shell.
func quoted(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
