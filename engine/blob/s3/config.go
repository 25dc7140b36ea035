// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/kbcli/kbcli/engine/blob"
)

// Config says where a store is and who asks.
type Config struct {
	// Endpoint is the URL of the server, "https://s3.example.com:9000"; without
	// a scheme https is meant. Empty means Amazon's, in Region.
	Endpoint string
	// Region may be empty: then the server is asked for that of the bucket.
	Region string
	Bucket string
	// Prefix is where in the bucket the keys begin: the object a is Prefix/a.
	// Slashes around it do not matter.
	Prefix string
	// PathStyle is whether the bucket is in the path of URLs rather than in the
	// host name. Nil means the host name for Amazon, Google and the like, which
	// are known by their endpoints, and the path for all others.
	PathStyle *bool

	// CAFile is a file with PEM certificates of authorities to trust besides
	// those of the system.
	CAFile string
	// InsecureSkipVerify believes any certificate.
	InsecureSkipVerify bool

	// AccessKey and the two secrets are what requests are signed with. An empty
	// AccessKey means unsigned requests.
	AccessKey    string
	SecretKey    Secret
	SessionToken Secret

	// Stall is how long a connection may stand still before it is given up,
	// while bytes go either way or an answer is due. Zero means a minute.
	Stall time.Duration
}

// WithCredentials is c with the keys of k.
func (c Config) WithCredentials(k Credentials) Config {
	c.AccessKey, c.SecretKey, c.SessionToken = k.AccessKey, k.SecretKey, k.SessionToken
	return c
}

func (c Config) endpoint() (host string, secure bool, err error) {
	raw := c.Endpoint
	if raw == "" {
		if c.Region == "" {
			return "", false, errors.New("neither an endpoint nor a region is given")
		}
		suffix := ""
		if strings.HasPrefix(c.Region, "cn-") {
			suffix = ".cn"
		}
		return "s3." + c.Region + ".amazonaws.com" + suffix, true, nil
	}
	if !strings.Contains(raw, "://") {
		raw = "https://" + raw
	}
	u, err := url.Parse(raw)
	if err != nil || u.User != nil {
		// The text may hold a password: it is not shown.
		return "", false, errors.New("the endpoint is not a URL of the form https://host:port")
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return "", false, fmt.Errorf("endpoint %s: the scheme must be https or http", u)
	case u.Hostname() == "":
		return "", false, fmt.Errorf("endpoint %s: no host", u)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return "", false, fmt.Errorf("endpoint %s: only scheme, host and port belong into it", u)
	}
	return u.Host, u.Scheme == "https", nil
}

func (c Config) prefix() (string, error) {
	p := strings.Trim(c.Prefix, "/")
	if p == "" {
		return "", nil
	}
	if err := blob.CheckKey(p); err != nil {
		return "", fmt.Errorf("prefix: %w", err)
	}
	return p + "/", nil
}

func (c Config) transport(secure bool, stall time.Duration) (*http.Transport, error) {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: min(stall, 30*time.Second), KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   min(stall, 15*time.Second),
		ResponseHeaderTimeout: stall,
		IdleConnTimeout:       time.Minute,
		MaxIdleConns:          256,
		MaxIdleConnsPerHost:   64,
		// An object that happens to be marked as gzip is to come as it is.
		DisableCompression: true,
	}
	if !secure {
		return t, nil
	}
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.InsecureSkipVerify}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read authorities: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read authorities: no PEM certificate in %s", c.CAFile)
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return t, nil
}

func (c Config) lookup() minio.BucketLookupType {
	switch {
	case c.PathStyle == nil:
		return minio.BucketLookupAuto
	case *c.PathStyle:
		return minio.BucketLookupPath
	}
	return minio.BucketLookupDNS
}

func (c Config) open() (*Store, error) {
	if c.Bucket == "" {
		return nil, errors.New("no bucket is given")
	}
	if err := s3utils.CheckValidBucketName(c.Bucket); err != nil {
		return nil, err
	}
	if c.AccessKey == "" && !c.SecretKey.IsZero() {
		return nil, errors.New("a secret key is given without an access key")
	}
	host, secure, err := c.endpoint()
	if err != nil {
		return nil, err
	}
	prefix, err := c.prefix()
	if err != nil {
		return nil, err
	}
	stall := c.Stall
	if stall <= 0 {
		stall = time.Minute
	}
	transport, err := c.transport(secure, stall)
	if err != nil {
		return nil, err
	}
	client, err := minio.New(host, &minio.Options{
		Creds:        credentials.NewStaticV4(c.AccessKey, c.SecretKey.Reveal(), c.SessionToken.Reveal()),
		Secure:       secure,
		Transport:    transport,
		Region:       c.Region,
		BucketLookup: c.lookup(),
		// One try. The library cannot know which failure of a Put is ambiguous.
		MaxRetries: 1,
	})
	if err != nil {
		return nil, err
	}
	return &Store{
		core: minio.Core{Client: client}, transport: transport,
		bucket: c.Bucket, prefix: prefix, stall: stall,
	}, nil
}
