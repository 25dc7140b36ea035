// SPDX-License-Identifier: Apache-2.0

package s3_test

import (
	"testing"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/blobtest"
	"github.com/kbcli/kbcli/engine/blob/s3"
	"github.com/kbcli/kbcli/internal/tests3"
)

func config(server *tests3.Server, bucket string) s3.Config {
	return s3.Config{
		Endpoint: server.Endpoint, Region: server.Region, Bucket: bucket, CAFile: server.CAFile,
		AccessKey: server.AccessKey, SecretKey: s3.NewSecret(server.SecretKey),
	}
}

func open(t *testing.T, c s3.Config) *s3.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestConformance(t *testing.T) {
	plain, secure := tests3.Start(t), tests3.StartTLS(t)
	t.Run("plain", func(t *testing.T) {
		blobtest.Run(t, func(t *testing.T) blob.Store {
			return open(t, config(plain, plain.NewBucket(t)))
		})
	})
	t.Run("TLS under a prefix", func(t *testing.T) {
		blobtest.Run(t, func(t *testing.T) blob.Store {
			c := config(secure, secure.NewBucket(t))
			c.Prefix = "/a/prefix/"
			return open(t, c)
		})
	})
}
