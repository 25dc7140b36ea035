// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
)

var (
	versionForm = regexp.MustCompile(`^postgresql-1[3-8]$`)
	settingForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*$`)
	secretForm  = regexp.MustCompile(`(?i)(^|[\s?&'])(ssl)?password\s*=`)
)

// ownedSettings are the settings that a restore, the archive or the placing of
// a server stands on, with the way to say the same thing.
var ownedSettings = map[string]string{
	"archive_command":           "WAL is archived by replication, not by a command",
	"archive_library":           "WAL is archived by replication, not by a library",
	"config_file":               "is set by kbcli",
	"data_directory":            "is spec.local.dataDirectory",
	"external_pid_file":         "is set by kbcli",
	"hba_file":                  "is set by kbcli",
	"ident_file":                "is set by kbcli",
	"port":                      "is spec.local.port",
	"primary_conninfo":          "is set by kbcli",
	"primary_slot_name":         "is set by kbcli",
	"promote_trigger_file":      "is set by kbcli",
	"restore_command":           "is set by kbcli while it restores",
	"synchronous_standby_names": "is spec.archive.mode of the backup policy",
	"unix_socket_directories":   "is set by kbcli",
}

// Validate is everything that is wrong with the name and the spec.
func (c *Cluster) Validate() error {
	var l FieldErrors
	l.clusterName("metadata.name", c.Name)
	l.metadata(c)
	s := &c.Spec
	if s.ClusterDefinitionRef != "postgresql" {
		l.invalid("spec.clusterDefinitionRef", s.ClusterDefinitionRef, "is not known: there is postgresql")
	}
	if s.ClusterVersionRef != "" && !versionForm.MatchString(s.ClusterVersionRef) {
		l.invalid("spec.clusterVersionRef", s.ClusterVersionRef, "is not one of postgresql-13 to postgresql-18")
	}
	switch s.TerminationPolicy {
	case TerminationDelete, TerminationDoNotTerminate, TerminationHalt, TerminationWipeOut:
	default:
		l.invalid("spec.terminationPolicy", string(s.TerminationPolicy), "is not one of Delete, DoNotTerminate, Halt, WipeOut")
	}
	if s.Replicas < 1 || s.Replicas > 16 {
		l.invalid("spec.replicas", strconv.Itoa(int(s.Replicas)), "is not a number from 1 to 16")
	}
	l.positive("spec.storage", &s.Storage)
	if s.StorageClassName != "" {
		l.subdomain("spec.storageClassName", s.StorageClassName)
	}
	l.positive("spec.resources.cpu", s.Resources.CPU)
	l.positive("spec.resources.memory", s.Resources.Memory)
	l.settings("spec.settings", s.Settings)
	if s.Local != nil {
		s.Local.validate(&l, "spec.local")
	}
	if s.Restore != nil {
		s.Restore.validate(&l, "spec.restore")
		if s.Local != nil && s.Local.Attached {
			l.forbidden("spec.restore", "cannot be given for an attached cluster: a restore never writes over a server")
		}
		if s.Restore.SourceCluster == c.Name && s.Restore.SourceNamespace == c.Namespace && s.Restore.SourceLineage == "" {
			l.invalid("spec.restore.sourceCluster", c.Name, "is the new cluster itself: name the lineage of the old one")
		}
	}
	return l.orNil()
}

func (l *FieldErrors) positive(path string, q *resource.Quantity) {
	if q != nil && q.Sign() <= 0 {
		l.invalid(path, q.String(), "is not more than zero")
	}
}

func (l *FieldErrors) settings(path string, m map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		at, name := joinPath(path, k), strings.ToLower(k)
		switch why, owned := ownedSettings[name]; {
		case !settingForm.MatchString(k):
			l.invalid(at, k, "is not the name of a setting")
		case owned:
			l.forbidden(at, why)
		case strings.HasPrefix(name, "recovery_"):
			l.forbidden(at, "is set by kbcli while it restores")
		case name == "wal_level" && strings.EqualFold(m[k], "minimal"):
			l.invalid(at, m[k], "writes too little WAL to restore from: use replica or logical")
		case strings.ContainsAny(m[k], "\x00\r\n"):
			l.invalid(at, m[k], "has more than one line")
		}
	}
}

func (s *LocalSpec) validate(l *FieldErrors, path string) {
	if s.Port < 0 || s.Port > 65535 {
		l.invalid(path+".port", strconv.Itoa(int(s.Port)), "is not a number from 1 to 65535, or 0 for any")
	}
	l.absolute(path+".dataDirectory", s.DataDirectory)
	switch {
	case hasPassword(s.Connect):
		// The value is left out: it is the secret.
		l.forbidden(path+".connect", "must not hold a password: use passfile=, or ~/.pgpass of the user that runs the agent")
	case s.Connect != "" && !s.Attached:
		l.forbidden(path+".connect", "is only for an attached cluster")
	case s.Connect == "" && s.Attached:
		l.required(path + ".connect")
	}
}

// hasPassword errs on the side of seeing one.
func hasPassword(conninfo string) bool {
	if secretForm.MatchString(conninfo) {
		return true
	}
	lower := strings.ToLower(conninfo)
	if !strings.HasPrefix(lower, "postgres://") && !strings.HasPrefix(lower, "postgresql://") {
		return false
	}
	// As libpq does: before the first slash, what stands before an @ is user:password.
	rest := conninfo[strings.Index(conninfo, "://")+3:]
	authority, _, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(authority, '@'); at >= 0 && strings.Contains(authority[:at], ":") {
		return true
	}
	if q := strings.IndexByte(rest, '?'); q >= 0 {
		v, err := url.ParseQuery(rest[q+1:])
		return err != nil || v.Has("password") || v.Has("sslpassword")
	}
	return false
}

func (r *RestoreSpec) validate(l *FieldErrors, path string) {
	l.clusterName(path+".sourceCluster", r.SourceCluster)
	if r.SourceNamespace != "" {
		l.label(path+".sourceNamespace", r.SourceNamespace)
	}
	if r.Backup != "" {
		l.subdomain(path+".backup", r.Backup)
	}
	var given []string
	for _, t := range []struct {
		name string
		is   bool
	}{{"time", r.Time != nil}, {"lsn", r.LSN != ""}, {"xid", r.XID != ""}, {"name", r.Name != ""}, {"latest", r.Latest}} {
		if t.is {
			given = append(given, t.name)
		}
	}
	switch {
	case len(given) > 1:
		l.forbidden(path, "has more than one target: "+strings.Join(given, ", "))
	case len(given) == 0 && r.Backup == "":
		l.invalid(path, "", "must have a target: time, lsn, xid, name or latest, or a backup")
	}
	if r.Time != nil && r.Time.IsZero() {
		l.invalid(path+".time", "", "must be a time such as 2023-04-17T11:56:40.000000Z")
	}
	l.lsn(path+".lsn", r.LSN)
	if x, err := strconv.ParseUint(r.XID, 10, 64); r.XID != "" && (err != nil || x < 3) {
		l.invalid(path+".xid", r.XID, "is not a transaction identifier, a number from 3")
	}
	// PostgreSQL keeps names of restore points in 64 bytes, the last one zero.
	if len(r.Name) > 63 || strings.ContainsRune(r.Name, 0) {
		l.invalid(path+".name", r.Name, "is not the name of a restore point: it has at most 63 bytes")
	}
	if r.Exclusive && r.Time == nil && r.LSN == "" && r.XID == "" {
		l.forbidden(path+".exclusive", "is only for a time, an lsn or an xid")
	}
	l.timeline(path+".timeline", r.Timeline, 0)
	l.absolute(path+".delta", r.Delta)
	r.Limits.validate(l, path+".limits")
	if t := r.Resolved; t != nil {
		l.timeline(path+".resolved.timeline", t.Timeline, 1)
		if t.StopLSN == "" {
			l.required(path + ".resolved.stopLSN")
		}
		l.lsn(path+".resolved.stopLSN", t.StopLSN)
		if t.EndLSN == "" {
			l.required(path + ".resolved.endLSN")
		}
		l.lsn(path+".resolved.endLSN", t.EndLSN)
		l.subdomain(path+".resolved.backupName", t.BackupName)
	}
}

func (l *FieldErrors) timeline(path string, v, least int64) {
	if v < least || v > 1<<32-1 {
		l.invalid(path, strconv.FormatInt(v, 10), "is not a timeline, a number from 1 to 4294967295")
	}
}

// ValidateUpdate refuses what would be another cluster.
func (c *Cluster) ValidateUpdate(old Object) error {
	var l FieldErrors
	was, is := &old.(*Cluster).Spec, &c.Spec
	immutable(&l, "spec.clusterDefinitionRef", was.ClusterDefinitionRef, is.ClusterDefinitionRef)
	if was.ClusterVersionRef != "" {
		immutable(&l, "spec.clusterVersionRef", was.ClusterVersionRef, is.ClusterVersionRef)
	}
	if is.Storage.Cmp(was.Storage) < 0 {
		l.invalid("spec.storage", is.Storage.String(), "is less than "+was.Storage.String()+": a volume cannot shrink")
	}
	immutable(&l, "spec.storageClassName", was.StorageClassName, is.StorageClassName)
	var wasLocal, isLocal LocalSpec
	if was.Local != nil {
		wasLocal = *was.Local
	}
	if is.Local != nil {
		isLocal = *is.Local
	}
	if wasLocal.DataDirectory != "" {
		immutable(&l, "spec.local.dataDirectory", wasLocal.DataDirectory, isLocal.DataDirectory)
	}
	immutable(&l, "spec.local.attached", wasLocal.Attached, isLocal.Attached)
	if !sameRestore(was.Restore, is.Restore) {
		l.forbidden("spec.restore", "cannot be changed: restore into another new cluster instead")
	}
	return l.orNil()
}

// sameRestore lets the resolved target be filled in once.
func sameRestore(was, is *RestoreSpec) bool {
	if was == nil || is == nil {
		return was == is
	}
	w := *was
	if w.Resolved == nil {
		w.Resolved = is.Resolved
	}
	a, errA := json.Marshal(w)
	b, errB := json.Marshal(is)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}
