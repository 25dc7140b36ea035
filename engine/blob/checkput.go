// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// ErrOverwrites says that a place puts over what is there, so that no
// repository can be kept in it.
var ErrOverwrites = errors.New("storage overwrites objects that it was told to leave alone")

// CheckPut tries whether a place keeps the promise of Put, which some servers
// that speak S3 and some file systems do not: eight Puts of one key at once, of
// which one must win, and another after them. ErrOverwrites says that it does
// not. The object, check-put- and a random name, is deleted again.
//
// It is for who sets up a repository; s should not be a Retry.
func CheckPut(ctx context.Context, s Store) (err error) {
	key := "check-put-" + strings.ToLower(rand.Text())
	defer func() {
		// Also after a cancel, but not for ever: a Store gives up by itself.
		if derr := s.Delete(context.WithoutCancel(ctx), key); err == nil && derr != nil {
			err = fmt.Errorf("check put: %w", derr)
		}
	}()
	errs := make([]error, 8)
	content := func(i int) string { return strings.Repeat(string(rune('a'+i)), 1000) }
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = s.Put(ctx, key, strings.NewReader(content(i))) })
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			return ErrOverwrites
		case err == nil:
			winner = i
		case !errors.Is(err, ErrExist):
			return fmt.Errorf("check put: %w", err)
		}
	}
	switch err := s.Put(ctx, key, strings.NewReader("late")); {
	case err == nil:
		return ErrOverwrites
	case !errors.Is(err, ErrExist):
		return fmt.Errorf("check put: %w", err)
	}
	got, err := ReadAll(ctx, s, key, 10_000)
	switch {
	case err != nil:
		return fmt.Errorf("check put: %w", err)
	case winner < 0:
		return errors.New("check put: the place says that an object exists which nobody has put")
	case string(got) != content(winner):
		return ErrOverwrites
	}
	return nil
}
