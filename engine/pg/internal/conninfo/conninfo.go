// SPDX-License-Identifier: Apache-2.0

package conninfo

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// ParseError says what is wrong with a connection string that pgconn or pgx
// refused, and nothing of the string itself: one that cannot be parsed cannot be
// redacted with certainty either.
func ParseError(err error) error {
	var parse *pgconn.ParseConfigError
	if !errors.As(err, &parse) {
		return errors.New("connection string is not valid")
	}
	bare := *parse
	bare.ConnString = ""
	text := strings.TrimPrefix(bare.Error(), "cannot parse ``: ")
	if inner := parse.Unwrap(); inner != nil {
		text = strings.TrimSuffix(text, " ("+inner.Error()+")")
	}
	// What follows a colon quotes a value.
	text, _, _ = strings.Cut(text, ":")
	text = strings.Replace(text, "failed to", "cannot", 1)
	if file := (*fs.PathError)(nil); errors.As(err, &file) {
		text += ": " + file.Err.Error() // without the path, which is a value too
	}
	return fmt.Errorf("connection string is not valid: %s", text)
}
