// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Credentials are the keys that requests are signed with.
type Credentials struct {
	AccessKey    string
	SecretKey    Secret
	SessionToken Secret // "" for keys that do not expire
}

// ReadCredentials reads a file of credentials in one of the forms that ParseCredentials reads.
func ReadCredentials(path, profile string) (Credentials, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Credentials{}, fmt.Errorf("read credentials: %w", err)
	}
	c, err := ParseCredentials(b, profile)
	if err != nil {
		return Credentials{}, fmt.Errorf("read credentials %s: %w", path, err)
	}
	return c, nil
}

// ParseCredentials reads credentials in JSON,
//
//	{"accessKey": "AKIA...", "secretKey": "...", "sessionToken": "..."}
//
// or in the form of Amazon's shared file, with the keys of one profile, named
// "default" if profile is empty:
//
//	[default]
//	aws_access_key_id     = AKIA...
//	aws_secret_access_key = ...
//	aws_session_token     = ...
//
// The names may be spelled in either form in both, in any case, with underscores
// or dashes or without. JSON has no profiles. No error shows what was read.
func ParseCredentials(b []byte, profile string) (Credentials, error) {
	b = bytes.TrimSpace(bytes.TrimPrefix(b, []byte("\ufeff")))
	var c Credentials
	var err error
	if bytes.HasPrefix(b, []byte("{")) {
		err = c.parseJSON(b)
	} else {
		err = c.parseINI(string(b), profile)
	}
	if err != nil {
		return Credentials{}, err
	}
	switch {
	case c.AccessKey == "":
		return Credentials{}, errors.New("no access key")
	case c.SecretKey.IsZero():
		return Credentials{}, errors.New("no secret key")
	}
	return c, nil
}

// set keeps value if name is that of a key.
func (c *Credentials) set(name, value string) {
	name = strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name))
	switch strings.TrimPrefix(name, "aws") {
	case "accesskey", "accesskeyid":
		c.AccessKey = value
	case "secretkey", "secretaccesskey":
		c.SecretKey = NewSecret(value)
	case "sessiontoken", "securitytoken":
		c.SessionToken = NewSecret(value)
	}
}

func (c *Credentials) parseJSON(b []byte) error {
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		// Its words may quote the file.
		return errors.New("not valid JSON")
	}
	for name, value := range fields {
		if s, ok := value.(string); ok {
			c.set(name, s)
		}
	}
	return nil
}

func (c *Credentials) parseINI(text, profile string) error {
	if profile == "" {
		profile = "default"
	}
	in, found, headed := true, false, false
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "", line[0] == '#', line[0] == ';':
			continue
		case line[0] == '[':
			name, ok := strings.CutSuffix(line[1:], "]")
			if !ok {
				return fmt.Errorf("line %d: a profile without its closing bracket", n+1)
			}
			name = strings.TrimSpace(name)
			headed = true
			in = name == profile || name == "profile "+profile
			found = found || in
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return fmt.Errorf("line %d: neither a profile nor a setting", n+1)
		}
		// Settings before the first profile count for the default one.
		if in && (headed || profile == "default") {
			c.set(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	if headed && !found && c.AccessKey == "" {
		return fmt.Errorf("no profile %q", profile)
	}
	return nil
}
