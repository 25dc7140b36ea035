// SPDX-License-Identifier: Apache-2.0

package checkup

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
)

// good is a server that everything is right with.
func good() *ServerFacts {
	return &ServerFacts{
		Target: ServerTarget{Conninfo: "host=/run/pg port=5432 user=postgres dbname=postgres", Slot: "kbcli_default_x"},
		Server: client.Server{
			Version: 150020, SystemID: 7, DataDirectory: "/data", SegmentSize: 16 << 20, BlockSize: 8192, DataChecksums: true,
			WALLevel: "replica", ArchiveMode: "off", FullPageWrites: true, MaxWALSenders: 10, MaxReplicationSlots: 10,
			Superuser: true, Replication: true,
		},
		User: "postgres", Agent: "postgres", Local: true, Fsync: true, SlotKeep: 1 << 30, SyncCommit: "on", PrimaryWrites: true,
		MayBackup: true, MaySeeSettings: true, MayAlter: true, RestoreRole: "postgres", InitRole: "postgres", HBAFile: "/etc/pg/pg_hba.conf",
		Rules:   []HBARule{{Line: 1, Type: "local", Databases: []string{"all"}, Users: []string{"all"}, Method: "peer"}},
		Stream:  Stream{SystemID: 7},
		Data:    DataFacts{Directory: "/data", Owner: "postgres", Control: pg.ControlFile{SystemID: 7, RelSegBlocks: pg.RelSegBlocks}, Free: 100 << 30},
		Restart: "systemctl restart postgresql@15-main",
	}
}

func TestCheckServer(t *testing.T) {
	const reload = "SELECT pg_reload_conf();"
	noRule := &pgconn.PgError{Code: "28000", Message: `no pg_hba.conf entry for replication connection`}
	for _, c := range []struct {
		name   string
		change func(*ServerFacts)
		want   []Finding // what does not pass
	}{
		{"good", func(*ServerFacts) {}, nil},
		{"too old", func(f *ServerFacts) { f.Server.Version = 120022 }, []Finding{
			{"server-version", Fail, "PostgreSQL 12.22; supported are 13 to 18", "-- use pg_upgrade to come to a release that is supported"},
		}},
		{"minimal", func(f *ServerFacts) { f.Server.WALLevel, f.Server.MaxWALSenders = "minimal", 0 }, []Finding{
			{"wal-level", Fail, "wal_level is minimal: its WAL is too little to restore from", "ALTER SYSTEM SET wal_level = 'replica';\nsystemctl restart postgresql@15-main"},
			{"wal-senders", Fail, "max_wal_senders is 0, and 0 are in use: archiving needs one", "ALTER SYSTEM SET max_wal_senders = 10;\nsystemctl restart postgresql@15-main"},
		}},
		{"all in use", func(f *ServerFacts) { f.Senders, f.Slots, f.Server.MaxReplicationSlots = 10, 8, 8 }, []Finding{
			{"wal-senders", Fail, "max_wal_senders is 10, and 10 are in use: archiving needs one", "ALTER SYSTEM SET max_wal_senders = 15;\nsystemctl restart postgresql@15-main"},
			{"replication-slots", Fail, "max_replication_slots is 8, and 8 are in use: archiving needs one", "ALTER SYSTEM SET max_replication_slots = 13;\nsystemctl restart postgresql@15-main"},
		}},
		{"bare role", func(f *ServerFacts) {
			f.User, f.Server.Superuser, f.Server.Replication, f.MayBackup, f.MaySeeSettings, f.MayAlter = "Keeper", false, false, false, false, false
			f.Server.Version = 130023
		}, []Finding{
			{
				"replication-role", Fail, "role Keeper lacks REPLICATION, EXECUTE on the backup functions, pg_read_all_settings",
				`ALTER ROLE "Keeper" REPLICATION;` + "\n" + `GRANT EXECUTE ON FUNCTION pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean) TO "Keeper";` + "\n" + `GRANT pg_read_all_settings TO "Keeper";`,
			},
		}},
		{"role without what sync mode takes", func(f *ServerFacts) {
			f.User, f.Server.Superuser, f.MayAlter, f.Target.Sync = "keeper", false, false, true
		}, []Finding{
			{
				"replication-role", Fail, "role keeper lacks the right to set synchronous_standby_names, for sync mode",
				"GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO keeper;\nGRANT EXECUTE ON FUNCTION pg_reload_conf() TO keeper;",
			},
		}},
		{"no line for replication", func(f *ServerFacts) { f.Stream = Stream{Err: fmt.Errorf("connect: %w", noRule)} }, []Finding{
			{
				"replication-connection", Fail, "a replication connection was refused: no pg_hba.conf entry for replication connection",
				"echo 'local  replication  postgres  peer' >> /etc/pg/pg_hba.conf\n" + reload,
			},
		}},
		{"a line that rejects", func(f *ServerFacts) {
			f.Stream = Stream{Err: noRule}
			f.Rules = append(f.Rules, HBARule{Line: 2, Type: "local", Databases: []string{"replication"}, Users: []string{"all"}, Method: "reject"})
		}, []Finding{
			{
				"replication-connection", Fail, "a replication connection was refused: no pg_hba.conf entry for replication connection",
				"sed -i '1i local  replication  postgres  peer' /etc/pg/pg_hba.conf\n" + reload,
			},
		}},
		{"a line that was not loaded", func(f *ServerFacts) {
			f.Stream = Stream{Err: noRule}
			f.Rules = append(f.Rules, HBARule{Line: 2, Type: "local", Databases: []string{"replication"}, Users: []string{"postgres"}, Method: "peer"})
		}, []Finding{
			{
				"replication-connection", Fail, "a replication connection was refused: no pg_hba.conf entry for replication connection",
				"-- pg_hba.conf lets it in as it is now:\n" + reload,
			},
		}},
		{"over TCP", func(f *ServerFacts) {
			f.Stream, f.Local, f.Client, f.User = Stream{Err: noRule}, false, "10.1.2.3", "keeper"
			f.Rules = []HBARule{
				{Line: 1, Type: "host", Databases: []string{"all"}, Users: []string{"all"}, Address: "10.9.0.0", Netmask: "255.255.0.0", Method: "trust"},
				{Line: 2, Type: "hostssl", Databases: []string{"all"}, Users: []string{"keeper"}, Address: "10.1.0.0", Netmask: "255.255.0.0", Method: "cert", Options: []string{"map=x", "ldapbindpasswd=secret"}},
			}
		}, []Finding{
			{
				"replication-connection", Fail, "a replication connection was refused: no pg_hba.conf entry for replication connection",
				"echo 'hostssl  replication  keeper  10.1.2.3/32  cert  map=x' >> /etc/pg/pg_hba.conf\n" + reload,
			},
		}},
		{"rules that may not be seen", func(f *ServerFacts) {
			f.Stream, f.Local, f.Client, f.User, f.Rules, f.HBAFile = Stream{Err: noRule}, false, "::1", "keeper", nil, ""
		}, []Finding{
			{
				"replication-connection", Fail, "a replication connection was refused: no pg_hba.conf entry for replication connection",
				"echo 'host  replication  keeper  ::1/128  scram-sha-256' >> /data/pg_hba.conf\n" + reload,
			},
		}},
		{"a pooler", func(f *ServerFacts) { f.Stream = Stream{SystemID: 8} }, []Finding{
			{
				"replication-connection", Fail, "a replication connection leads to another server, with system identifier 8: what answers at this address changes",
				"-- connect to the server itself, not to a pooler or a load balancer",
			},
		}},
		{"another cluster's directory", func(f *ServerFacts) { f.Data.Control.SystemID = 9 }, []Finding{
			{
				"data-directory", Fail, "/data is a data directory of another cluster: its system identifier is 9, and the server's 7",
				"-- give the data directory that this server names: SHOW data_directory;",
			},
		}},
		{"a directory that may not be read", func(f *ServerFacts) { f.Agent, f.Data.Err = "joe", fs.ErrPermission }, []Finding{
			{
				"data-directory", Fail, "/data cannot be read: permission denied",
				"# run kbcli as root or as postgres, or, for a directory of initdb --allow-group-access: usermod -aG postgres joe",
			},
		}},
		{"pages of another size", func(f *ServerFacts) { f.Server.BlockSize = 32768 }, []Finding{
			{
				"page-layout", Fail, "pages have 32768 bytes and relation files 131072 pages; supported are 8192 and 131072",
				"-- move the data to a server that was built with the usual sizes",
			},
		}},
		{"careless", func(f *ServerFacts) {
			f.Server.FullPageWrites, f.Fsync, f.Server.DataChecksums, f.SlotKeep = false, false, false, unbounded
		}, []Finding{
			{"full-page-writes", Warn, "full_page_writes is off: a crash of the machine may tear pages of the server", "ALTER SYSTEM SET full_page_writes = on;\n" + reload},
			{"fsync", Warn, "fsync is off: after a crash of the machine the server may have lost what the archive holds", "ALTER SYSTEM SET fsync = on;\n" + reload},
			{"checksums", Warn, "data checksums are off: a damaged page cannot be told from a good one when it is backed up", "# while the server is stopped: pg_checksums --enable -D /data"},
			{
				"slot-room", Warn, "max_slot_wal_keep_size is not set: should the repository be out of reach for long, the server keeps WAL until its disk is full; 107 GB are free on the file system of pg_wal",
				"ALTER SYSTEM SET max_slot_wal_keep_size = '51200MB';\n" + reload,
			},
		}},
		{"more kept than there is room", func(f *ServerFacts) { f.SlotKeep, f.Data.Free = 64<<30, 3<<30 }, []Finding{
			{
				"slot-room", Warn, "max_slot_wal_keep_size is 69 GB; 3.2 GB are free on the file system of pg_wal, which is less",
				"ALTER SYSTEM SET max_slot_wal_keep_size = '1536MB';\n" + reload,
			},
		}},
		{"standby whose primary tears pages", func(f *ServerFacts) { f.Server.InRecovery, f.PrimaryWrites = true, false }, []Finding{
			{
				"full-page-writes", Fail, "full_page_writes is off on the primary: no backup can be taken from a standby of it",
				"-- on the primary:\nALTER SYSTEM SET full_page_writes = on;\n" + reload,
			},
		}},
		{"a tablespace that may not be read", func(f *ServerFacts) {
			f.Tablespaces = []TablespaceFacts{{"fast", "/ssd", nil}, {"slow", "/hdd", errors.New("permission denied")}}
		}, []Finding{
			{
				"tablespaces", Fail, "slow in /hdd cannot be read: permission denied",
				"# run kbcli as root or as postgres, or, for a directory of initdb --allow-group-access: usermod -aG postgres postgres",
			},
		}},
		{"any standby is waited for", func(f *ServerFacts) { f.SyncNames = "*" }, []Finding{
			{
				"synchronous-standby-names", Warn, `synchronous_standby_names is "*": the archive may be taken for the standby that is waited for`,
				"-- name the standbys in synchronous_standby_names instead of *",
			},
		}},
		{"any standby must have applied", func(f *ServerFacts) { f.SyncNames, f.SyncCommit = "ANY 1 (*)", "remote_apply" }, []Finding{
			{
				"synchronous-standby-names", Fail, `synchronous_standby_names is "ANY 1 (*)", which takes the archive for a standby, and synchronous_commit is remote_apply: commits would wait for ever`,
				"-- name the standbys in synchronous_standby_names instead of *",
			},
		}},
		{"sync mode beside a standby", func(f *ServerFacts) { f.SyncNames, f.Target.Sync = "s1", true }, []Finding{
			{
				"synchronous-standby-names", Fail, `synchronous_standby_names is "s1" already: sync mode would have to take its place`,
				"-- use mode async in the backup policy, or RESET synchronous_standby_names",
			},
		}},
		{"no superuser that may log in", func(f *ServerFacts) { f.RestoreRole, f.InitRole = "", "Boss Man" }, []Finding{
			{
				"restore-role", Fail, "no superuser may log in: a server that is restored from this one could not be opened",
				"# if nobody may run this: stop the server, and give it to postgres --single\nALTER ROLE \"Boss Man\" SUPERUSER LOGIN;",
			},
		}},
		{"our own", func(f *ServerFacts) { f.SyncNames, f.Target.Sync = "kbcli_default_x", true }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := good()
			c.change(f)
			var got []Finding
			for _, n := range CheckServer(f) {
				if n.Evidence == "" || strings.Contains(n.Evidence, "\n") {
					t.Errorf("%s: evidence %q is not one line", n.Check, n.Evidence)
				}
				if n.Level != Pass {
					got = append(got, n)
				} else if n.Next != "" {
					t.Errorf("%s passes, and says to do %q", n.Check, n.Next)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestRestartCommand(t *testing.T) {
	debian := []string{"/usr/lib/postgresql/15/bin/postgres", "-D", "/var/lib/postgresql/15/main", "-c", "config_file=/etc/postgresql/15/main/postgresql.conf"}
	for _, c := range []struct {
		name string
		p    postmaster
		want string
	}{
		{"systemd", postmaster{pid: 1, args: debian, unit: unitOf("0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n")}, "systemctl restart postgresql@15-main"},
		{"systemd of another vendor", postmaster{pid: 1, unit: unitOf("12:pids:/x\n1:name=systemd:/system.slice/postgresql-15.service\n")}, "systemctl restart postgresql-15"},
		{"a user's session", postmaster{pid: 1, args: debian, unit: unitOf("0::/user.slice/user-0.slice/session-1.scope\n")}, "pg_ctlcluster 15 main restart"},
		{"by hand", postmaster{pid: 1, program: "/opt/pg/bin/postgres", log: "/var/log/my log"}, "/opt/pg/bin/pg_ctl -D /data -w -l '/var/log/my log' restart"},
		{"does not run", postmaster{}, "pg_ctl -D /data -w restart"},
	} {
		if got := restartCommand(c.p, "/data"); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestUnreachable(t *testing.T) {
	f := &ServerFacts{Target: ServerTarget{Conninfo: "host=/nowhere port=1 user=app"}, User: "app", Agent: "root", Local: true}
	got := ServerUnreachable(f, &pgconn.PgError{Code: "28000", Message: `Peer authentication failed for user "app"`})
	want := Finding{
		"connection", Fail, `Peer authentication failed for user "app"`,
		"sed -i '1i local  all  app  peer map=kbcli' pg_hba.conf\nsed -i '1i local  replication  app  peer map=kbcli' pg_hba.conf\n" +
			"echo 'kbcli  root  app' >> pg_ident.conf\nSELECT pg_reload_conf();",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
