// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/kbcli/kbcli/internal/tests3"
)

// bucket is a place in an S3 server of this machine that speaks TLS. One tool has it.
type bucket struct {
	*tests3.Server
	name string
}

func (s *bucket) dir() string { return filepath.Join(s.Dir, s.name) }

// pgBackRest are the lines of its configuration.
func (s *bucket) pgBackRest() string {
	_, port, _ := strings.Cut(strings.TrimPrefix(s.Endpoint, "https://"), ":")
	const host = "localhost" // it looks for no address in a certificate
	return fmt.Sprintf(`repo1-type=s3
repo1-path=/
repo1-s3-bucket=%s
repo1-s3-endpoint=%s
repo1-s3-region=%s
repo1-s3-key=%s
repo1-s3-key-secret=%s
repo1-s3-uri-style=path
repo1-storage-port=%s
repo1-storage-ca-file=%s`, s.name, host, s.Region, s.AccessKey, s.SecretKey, port, s.CAFile)
}
