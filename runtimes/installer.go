// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"time"
)

// Installer is a Runtime that keeps the settings of an installation, and that may be
// installed into in the first place.
type Installer interface {
	// SettingKeys are the keys there are, in the order in which people are shown them. One
	// that ends with a dot takes any name after it.
	SettingKeys() []string

	// Install makes the installation. Where there is one it changes what i says.
	Install(ctx context.Context, i Installation) error

	// Configure changes the settings that i says, and brings what is installed to this
	// program's release.
	Configure(ctx context.Context, i Installation) error

	// Installed is what there is; nil where nothing was installed.
	Installed(ctx context.Context) (*Installed, error)

	// Uninstall takes away what Install made. Clusters, backups and credentials are not
	// part of that: the caller sees to it that there are none that need an installation.
	Uninstall(ctx context.Context, u Uninstallation) error
}

// Installation says what to install.
type Installation struct {
	Namespace string         // where; means nothing on one machine
	Values    map[string]any // nested: {"image": {"tag": "1"}}
	Wait      bool           // return when it runs
	Timeout   time.Duration  // of all of it
	Step      func(what string)
}

// Uninstallation says what is taken away besides.
type Uninstallation struct {
	Namespace   string
	Definitions bool // the kinds themselves, and with them each object
	Timeout     time.Duration
	Step        func(what string)
}

// Installed is what an installation says of itself.
type Installed struct {
	Place    string // "on this machine"
	Version  string
	State    string            // what there is to say of how it runs; may be empty
	Settings map[string]string // by key: what holds, defaults too
}
