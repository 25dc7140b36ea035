// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kbcli/kbcli/internal/testkube"
)

const usage = "usage: node build | up [--nodes 1|2] [--bare] | renew | down [DIRECTORY] | status | kubectl ARGS..."

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
}

func run(verb string, args []string) error {
	switch verb {
	case "build":
		return build()
	case "up":
		return up(args)
	case "renew":
		c, err := only()
		if err != nil {
			return err
		}
		return c.Renew()
	case "down":
		return down(args)
	case "status":
		return status()
	case "kubectl":
		c, err := only()
		if err != nil {
			return err
		}
		out, err := c.Try("", args...)
		fmt.Print(out)
		return err
	default:
		return errors.New(usage)
	}
}

func build() error {
	began := time.Now()
	dir, err := testkube.Parts(os.Stderr)
	if err != nil {
		return err
	}
	fmt.Printf("%s, in %v\n", dir, time.Since(began).Round(time.Second))
	if os.Geteuid() != 0 {
		return nil // the image, like a node, needs root
	}
	began = time.Now()
	image, err := testkube.PostgreSQLArchive()
	if err != nil {
		return err
	}
	fmt.Printf("%s, in %v\n", image, time.Since(began).Round(time.Second))
	return nil
}

func up(args []string) error {
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	nodes := flags.Int("nodes", 1, "1 or 2")
	bare := flags.Bool("bare", false, "without the images of kbcli and PostgreSQL")
	if err := flags.Parse(args); err != nil {
		return err
	}
	running, err := testkube.Running()
	if err != nil {
		return err
	}
	if len(running) > 0 {
		fmt.Fprintf(os.Stderr, "already up beside this one, perhaps of a test: %s\n", running[0].Dir())
	}
	began := time.Now()
	c, err := testkube.Up(testkube.Options{Nodes: *nodes, Bare: *bare, Lasting: true, Progress: os.Stderr})
	if err != nil {
		return err
	}
	fmt.Printf("up in %v: %s\nexport KUBECONFIG=%s\n", time.Since(began).Round(100*time.Millisecond), c.Host, c.Kubeconfig)
	return nil
}

// down ends the one whose directory is given, or those that up has started, and removes
// what killed ones have left. Those of running tests are let be.
func down(dirs []string) error {
	running, err := testkube.Running()
	if err != nil {
		return err
	}
	for _, c := range running {
		if len(dirs) > 0 && !slices.Contains(dirs, c.Dir()) {
			continue
		}
		mine, err := c.Lasting()
		if err != nil {
			return err
		}
		if !mine {
			fmt.Printf("%s belongs to a running test\n", filepath.Base(c.Dir()))
			continue
		}
		if err := c.Down(); err != nil {
			return err
		}
		fmt.Printf("%s is down\n", filepath.Base(c.Dir()))
	}
	return nil
}

func status() error {
	running, err := testkube.Running()
	if err != nil {
		return err
	}
	if len(running) == 0 {
		fmt.Println("no node is up")
	}
	for _, c := range running {
		fmt.Printf("%s  %s  KUBECONFIG=%s\n", filepath.Base(c.Dir()), c.Host, c.Kubeconfig)
		out, err := c.Try("", "get", "nodes,pods", "--all-namespaces", "-o", "wide", "--request-timeout=5s")
		if err != nil {
			fmt.Println("  does not answer:", err)
			continue
		}
		fmt.Print(out)
	}
	return nil
}

// only is the one cluster that up has started, or that of testkube.EnvNode: others on
// this machine may be somebody else's.
func only() (*testkube.Cluster, error) {
	if dir := os.Getenv(testkube.EnvNode); dir != "" {
		return testkube.Open(dir)
	}
	running, err := testkube.Running()
	if err != nil {
		return nil, err
	}
	var found *testkube.Cluster
	for _, c := range running {
		mine, err := c.Lasting()
		if err != nil {
			return nil, err
		}
		if !mine {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("several nodes are up: %s=%s or another says which is meant", testkube.EnvNode, c.Dir())
		}
		found = c
	}
	if found == nil {
		return nil, errors.New("no node is up: node up starts one")
	}
	return found, nil
}
