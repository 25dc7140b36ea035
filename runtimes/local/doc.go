// SPDX-License-Identifier: Apache-2.0

// Package local is one machine as a place where clusters live: directories, ports,
// server processes, and the agent that looks after them.
//
//	<state>/                       readable by all, but for what is said below
//	  objects/                     the nouns people write (runtimes/store/files)
//	  agent.lock                   held by the one agent of the state directory
//	  agent.json, agent.pid        who that is, once it is ready
//	  agent.start                  held by the verb that starts one
//	  agent.stopped                somebody stopped it, and means it
//	  agent.log                    what it did, a JSON object a line
//	  events/                      what happened: a JSON object a line, a file a cluster
//	  installation                 its name, which locks in repositories bear
//	  rates.json                   how long restores took, for the estimates of plans
//	  known/                       0700: of what this machine wrote into sealed repositories
//	                             and cannot open, what an incremental backup needs to know
//	  verify/<random>/             a backup that is being tried out
//	  secrets/                     0700: credentials of repositories
//	  repository/                  the default repository
//	  clusters/<namespace>/<name>/
//	    data/                      the server's data directory
//	    tablespaces/<oid>/         of a restored server
//	    spool/<lineage>/           WAL on its way to the repository
//	    recovery/                  while it is being restored
//	    server.log
//	  snapshots/<lineage>/<backup>/  of own servers, where the file system can clone; they
//	                             stay when their cluster is deleted
//	  run/<namespace>.<name>/      the server's socket
//
// Servers run as user postgres when the agent runs as root, else as the agent's
// user. They outlive the agent, which finds them again by their postmaster.pid. A
// data directory is made beside its place and renamed into it when it is whole,
// so that a directory named data always holds a server that can start.
//
// The agent is a unit of systemd where that runs, else a process that the first verb
// which needs it starts. When the file of its program is replaced it becomes the new
// program, in the same process and with the lock, once nothing is under way that would be
// lost. An agent whose lock is no longer the state directory's ends.
package local
