// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"time"
)

// EventType tells whether something went as it should.
type EventType string

// The types of events, as Kubernetes has them.
const (
	EventNormal  EventType = "Normal"
	EventWarning EventType = "Warning"
)

// Event is something that happened to an object. The same thing again, with the
// same words, raises Count and Last.
type Event struct {
	Namespace string    `json:"namespace"`
	Cluster   string    `json:"cluster"` // empty for what belongs to none, such as a repository
	Object    string    `json:"object"`  // "Backup/b1"
	Type      EventType `json:"type"`
	Reason    string    `json:"reason"` // one CamelCase word
	Message   string    `json:"message"`
	Count     int       `json:"count"`
	First     time.Time `json:"first"`
	Last      time.Time `json:"last"`
}

// EventReader is a Runtime that remembers what happened.
type EventReader interface {
	// Events lists what happened to a cluster and what belongs to it, oldest first;
	// to everything in the namespace with an empty cluster. A cluster that is gone
	// has its events still, for a while.
	Events(ctx context.Context, namespace, cluster string) ([]Event, error)
}
