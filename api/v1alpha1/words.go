// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	"k8s.io/apimachinery/pkg/util/validation"
)

// MaxClusterName is how many characters the name of a Cluster may have: names
// of volumes, pods and services are made from it, and theirs end at 63.
const MaxClusterName = 40

// maxTTL keeps the sum of a ttl and any date within the years that have a text.
const maxTTL = 36500 * 24 * time.Hour

var (
	ttlForm = regexp.MustCompile(`^[0-9]+[dDhH]$`)
	lsnForm = regexp.MustCompile(`^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$`)
)

// ParseTTL reads a number of days or hours, "7d" or "168h", in either case. It
// is more than nothing and at most a hundred years.
func ParseTTL(s string) (time.Duration, error) {
	d, err := parseDays(s)
	if err == nil && d == 0 {
		err = fmt.Errorf("%q is no time at all: use at least 1h", s)
	}
	return d, err
}

// DefaultGrace is that of a policy which does not say one.
const DefaultGrace = "1d"

// ParseGrace reads how long what is let go is only marked: a number of days or hours
// as ParseTTL, or none. No text is the default.
func ParseGrace(s string) (time.Duration, error) {
	if s == "" {
		s = DefaultGrace
	}
	return parseDays(s)
}

func parseDays(s string) (time.Duration, error) {
	if !ttlForm.MatchString(s) {
		return 0, fmt.Errorf("%q is not a number of days or hours such as 7d or 168h", s)
	}
	unit := time.Hour
	if c := s[len(s)-1]; c == 'd' || c == 'D' {
		unit = 24 * time.Hour
	}
	n, err := strconv.ParseInt(s[:len(s)-1], 10, 64)
	if err != nil || n > int64(maxTTL/unit) {
		return 0, fmt.Errorf("%q is more than %dd", s, maxTTL/(24*time.Hour))
	}
	return time.Duration(n) * unit, nil
}

// Cron is a schedule in UTC.
//
// +kubebuilder:object:generate=false
type Cron struct {
	text     string
	schedule cron.Schedule
}

var cronParser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

// ParseCron reads the five fields of crontab(5): minute, hour, day of month,
// month, day of week. Seconds, zones and words such as @daily are refused, and
// so is a moment that never comes, such as the 31st of February.
func ParseCron(s string) (Cron, error) {
	// The parser would take a zone for a prefix, and panic on a lone one.
	if strings.Contains(s, "TZ=") {
		return Cron{}, fmt.Errorf("%q names a zone: schedules are in UTC", s)
	}
	if strings.HasPrefix(strings.TrimSpace(s), "@") {
		return Cron{}, fmt.Errorf("%q is not five fields such as 0 18 * * *: words are not taken", s)
	}
	if n := len(strings.Fields(s)); n != 5 {
		return Cron{}, fmt.Errorf("%q has %d fields: minute, hour, day of month, month and day of week are five", s, n)
	}
	sched, err := cronParser.Parse(s)
	if err != nil {
		return Cron{}, fmt.Errorf("%q is not a schedule: %w", s, err)
	}
	if sched.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Cron{}, fmt.Errorf("%q never comes", s)
	}
	return Cron{text: s, schedule: sched}, nil
}

// String is the text that was parsed.
func (c Cron) String() string { return c.text }

// Next is the first moment of the schedule strictly after t, in UTC, to the second.
func (c Cron) Next(t time.Time) time.Time { return c.schedule.Next(t.UTC()) }

// FormatSize is a number of bytes for people: three digits, powers of a
// thousand, "312 MB".
func FormatSize(n int64) string {
	if n < 1000 && n > -1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, unit := float64(n), -1
	for ; (v >= 999.5 || v <= -999.5) && unit < 5; unit++ {
		v /= 1000
	}
	digits := 0
	switch a := max(v, -v); {
	case a < 9.995:
		digits = 2
	case a < 99.95:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + " " + "kMGTPE"[unit:unit+1] + "B"
}

// DefaultBackupPolicyName is the policy that is made with a cluster.
func DefaultBackupPolicyName(cluster string) string { return cluster + "-postgresql-backup-policy" }

// BackupName is the name of a backup that was asked for at t, which is written
// in t's own zone: "backup-default-my-pg-20230417195547".
func BackupName(namespace, cluster string, t time.Time) string {
	return "backup-" + namespace + "-" + cluster + "-" + t.Format("20060102150405")
}

// reasonOf cuts the quoted value from the front of err: the path and the value
// are said by the FieldError already.
func reasonOf(value string, err error) string {
	return strings.TrimPrefix(err.Error(), strconv.Quote(value)+" ")
}

func (l *FieldErrors) clusterName(path, s string) {
	switch {
	case s == "":
		l.required(path)
	case len(s) > MaxClusterName:
		l.invalid(path, s, fmt.Sprintf("has %d characters, at most %d are allowed", len(s), MaxClusterName))
	case len(validation.IsDNS1035Label(s)) > 0:
		l.invalid(path, s, "is not a name of lower-case letters, digits and '-' that starts with a letter and ends with a letter or digit")
	}
}

func (l *FieldErrors) label(path, s string) {
	if s == "" {
		l.required(path)
	} else if len(validation.IsDNS1123Label(s)) > 0 {
		l.invalid(path, s, "is not a name of at most 63 lower-case letters, digits and '-' that starts and ends with a letter or digit")
	}
}

func (l *FieldErrors) subdomain(path, s string) {
	if s == "" {
		l.required(path)
	} else if len(validation.IsDNS1123Subdomain(s)) > 0 {
		l.invalid(path, s, "is not a name of at most 253 lower-case letters, digits, '-' and '.' that starts and ends with a letter or digit")
	}
}

// metadata checks what every kind has in common, the name apart.
func (l *FieldErrors) metadata(o Object) {
	if KindOf(o).Namespaced {
		l.label("metadata.namespace", o.GetNamespace())
	} else if o.GetNamespace() != "" {
		l.forbidden("metadata.namespace", "must be empty: there is one for the whole installation")
	}
	labels := o.GetLabels()
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		v := labels[k]
		if errs := validation.IsQualifiedName(k); len(errs) > 0 {
			l.invalid(joinPath("metadata.labels", k), k, "is not the name of a label: "+errs[0])
		}
		if errs := validation.IsValidLabelValue(v); len(errs) > 0 {
			l.invalid(joinPath("metadata.labels", k), v, "is not the value of a label: "+errs[0])
		}
	}
}

func (l *FieldErrors) absolute(field, s string) {
	if s != "" && (!path.IsAbs(s) || path.Clean(s) != s || strings.ContainsRune(s, 0)) {
		l.invalid(field, s, "is not an absolute path without . and ..")
	}
}

func (l *FieldErrors) lsn(path, s string) {
	if s != "" && !lsnForm.MatchString(s) {
		l.invalid(path, s, "is not a position in the WAL such as 0/3000028")
	}
}
