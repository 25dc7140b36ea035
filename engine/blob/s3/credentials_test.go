// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseCredentials(t *testing.T) {
	const shared = `
; a comment
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key=de/fault+secret=
# another
[profile backup]
AWS_ACCESS_KEY_ID=AKIABACKUP
aws_secret_access_key = backup secret
aws_session_token = token==
region = eu-central-1
[empty]
`
	for _, test := range []struct {
		name, text, profile string
		want                [3]string
		err                 string
	}{
		{"default", shared, "", [3]string{"AKIADEFAULT", "de/fault+secret=", ""}, ""},
		{"by name", shared, "default", [3]string{"AKIADEFAULT", "de/fault+secret=", ""}, ""},
		{"profile", shared, "backup", [3]string{"AKIABACKUP", "backup secret", "token=="}, ""},
		{"CRLF", strings.ReplaceAll(shared, "\n", "\r\n"), "backup", [3]string{"AKIABACKUP", "backup secret", "token=="}, ""},
		{"no head", "access_key=a\nsecret_key=b", "", [3]string{"a", "b", ""}, ""},
		{"JSON", `{"accessKey":"a","secretKey":"b"}`, "", [3]string{"a", "b", ""}, ""},
		{"JSON of Amazon", ` {"Version":1,"AccessKeyId":"a","SecretAccessKey":"b","SessionToken":"c"}`, "", [3]string{"a", "b", "c"}, ""},
		{"JSON with a mark", "\ufeff" + `{"access-key":"a","AWS_SECRET_ACCESS_KEY":"b"}`, "", [3]string{"a", "b", ""}, ""},
		{"no profile", shared, "absent", [3]string{}, `no profile "absent"`},
		{"empty profile", shared, "empty", [3]string{}, "no access key"},
		{"no head, profile", "access_key=a\nsecret_key=hunter2", "p", [3]string{}, "no access key"},
		{"empty", "", "", [3]string{}, "no access key"},
		{"half", "[default]\naccess_key=a", "", [3]string{}, "no secret key"},
		{"no setting", "hunter2", "", [3]string{}, "line 1"},
		{"open bracket", "# x\n[hunter2", "", [3]string{}, "line 2"},
		{"bad JSON", `{"secretKey":"hunter2"`, "", [3]string{}, "not valid JSON"},
		{"JSON numbers", `{"accessKey":1,"secretKey":2}`, "", [3]string{}, "no access key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "credentials")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := ReadCredentials(path, test.profile)
			if diff := cmp.Diff(test.want, plain(got)); diff != "" {
				t.Errorf("credentials (-want +got):\n%s", diff)
			}
			if (err != nil) != (test.err != "") || (err != nil && !strings.Contains(err.Error(), test.err)) {
				t.Errorf("got error %v, want %q", err, test.err)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
	if _, err := ReadCredentials(filepath.Join(t.TempDir(), "absent"), ""); !os.IsNotExist(unwrap(err)) {
		t.Errorf("absent file: %v", err)
	}
}

func unwrap(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok {
		return u.Unwrap()
	}
	return err
}

func plain(c Credentials) [3]string {
	return [3]string{c.AccessKey, c.SecretKey.Reveal(), c.SessionToken.Reveal()}
}

func FuzzParseCredentials(f *testing.F) {
	f.Add([]byte("[default]\naws_access_key_id=a\naws_secret_access_key=b"), "default")
	f.Add([]byte(`{"accessKey":"a","secretKey":"b"}`), "")
	f.Fuzz(func(t *testing.T, b []byte, profile string) {
		c, err := ParseCredentials(b, profile)
		if err == nil && (c.AccessKey == "" || c.SecretKey.IsZero()) {
			t.Errorf("no error and no keys")
		}
		if err != nil && c != (Credentials{}) {
			t.Errorf("an error and keys")
		}
	})
}

func TestSecretsAreNotShown(t *testing.T) {
	c := Config{Endpoint: "https://host", Bucket: "b", AccessKey: "AKIA"}.
		WithCredentials(Credentials{"AKIA", NewSecret("hunter2"), NewSecret("token2")})
	var shown strings.Builder
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %[1]p"} {
		for _, v := range []any{c, &c, c.SecretKey, c.SessionToken, []Secret{c.SecretKey}, map[Secret]Secret{c.SecretKey: c.SecretKey}, struct{ s any }{c}} {
			fmt.Fprintf(&shown, format+"\n", v)
		}
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "config", c, "secret", c.SecretKey)
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "config", c, "secret", c.SecretKey)
	shown.Write(log.Bytes())
	b, err := json.Marshal(map[string]any{"c": c, "m": map[Secret]int{c.SecretKey: 1}})
	if err != nil {
		t.Fatal(err)
	}
	shown.Write(b)
	for _, secret := range []string{"hunter2", "token2", fmt.Sprintf("%x", "hunter2"), fmt.Sprintf("%X", "hunter2")} {
		if strings.Contains(shown.String(), secret) {
			t.Errorf("%q is shown", secret)
		}
	}
	if got := fmt.Sprintf("%s|%s", c.SecretKey, Secret{}); got != "REDACTED|" {
		t.Errorf("prints as %q", got)
	}
	var read Config
	if err := json.Unmarshal([]byte(`{"SecretKey":"hunter2"}`), &read); err != nil || !read.SecretKey.Equal(NewSecret("hunter2")) {
		t.Errorf("read from JSON: %v", err)
	}
}

func TestEndpoint(t *testing.T) {
	for _, test := range []struct {
		endpoint, region, host string
		secure                 bool
	}{
		{"https://s3.example.com", "", "s3.example.com", true},
		{"https://s3.example.com:9000/", "", "s3.example.com:9000", true},
		{"http://127.0.0.1:7070", "", "127.0.0.1:7070", false},
		{"http://[::1]:7070", "", "[::1]:7070", false},
		{"minio:9000", "", "minio:9000", true},
		{"", "eu-central-1", "s3.eu-central-1.amazonaws.com", true},
		{"", "cn-north-1", "s3.cn-north-1.amazonaws.com.cn", true},
	} {
		host, secure, err := Config{Endpoint: test.endpoint, Region: test.region}.endpoint()
		if err != nil || host != test.host || secure != test.secure {
			t.Errorf("%q in %q: got %q, %t, %v", test.endpoint, test.region, host, secure, err)
		}
	}
}
