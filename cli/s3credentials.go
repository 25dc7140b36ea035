// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/runtimes"
)

// s3Credentials are keys, from wherever they may come: a file, flags, the
// environment, a prompt.
type s3Credentials struct {
	accessKey, secretKey string
	file                 string
	ask                  bool // on a terminal, when none were found
}

func (k *s3Credentials) flags(c *cobra.Command) {
	c.Flags().StringVar(&k.accessKey, "access-key", "", "the S3 access key; its secret key is taken from $AWS_SECRET_ACCESS_KEY or asked for")
	c.Flags().StringVar(&k.file, "credentials-file", "", "a file with the keys, JSON or like ~/.aws/credentials, that is copied")
}

// keep stores the keys as the secret of a repository and returns its path. With
// none given that is "" and whoever uses the repository looks around by itself.
// With fresh the environment counts too.
func (k *s3Credentials) keep(ctx context.Context, a *app, name string, fresh bool) (string, error) {
	data, err := k.data(ctx, a, fresh)
	if err != nil || data == nil {
		return "", err
	}
	rt, err := a.runtime(ctx)
	if err != nil {
		return "", err
	}
	keeper, ok := rt.(runtimes.SecretKeeper)
	if !ok {
		return "", failed("secrets cannot be kept here")
	}
	return keeper.KeepSecret(ctx, name, data)
}

func (k *s3Credentials) data(ctx context.Context, a *app, fresh bool) ([]byte, error) {
	if k.file != "" {
		return os.ReadFile(k.file)
	}
	access, secret := k.accessKey, k.secretKey
	if access == "" && fresh {
		access = a.env("AWS_ACCESS_KEY_ID")
	}
	if access == "" && secret == "" && !(k.ask && a.interactive()) {
		return nil, nil
	}
	if secret == "" {
		secret = a.env("AWS_SECRET_ACCESS_KEY")
	}
	if !a.interactive() && (access == "" || secret == "") {
		return nil, usage("the access key and the secret key are given together").
			hints("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file with --credentials-file")
	}
	var err error
	if access == "" {
		fmt.Fprint(a.stdio.Err, "access key: ")
		if access, err = a.readLine(ctx); err != nil {
			return nil, err
		}
	}
	if secret == "" {
		fmt.Fprint(a.stdio.Err, "secret key: ")
		if secret, err = a.password(ctx); err != nil {
			return nil, err
		}
	}
	return json.Marshal(map[string]string{"accessKey": strings.TrimSpace(access), "secretKey": strings.TrimSpace(secret)})
}
