// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

const rememberAlert = "Alert: Please do REMEMBER the password for the new user! Once forgotten, it cannot be retrieved!"

// accountCommand makes a verb on the accounts of a cluster. do is given its superuser.
func accountCommand(a *app, use, short, example string, user *string, do func(ctx context.Context, x *admin) error, before ...func(ctx context.Context) error) *cobra.Command {
	c := &cobra.Command{
		Use: use + " NAME", Short: short, Args: oneName("cluster"), Example: example,
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if user != nil {
				if err := checkUser(*user); err != nil {
					return err
				}
			}
			for _, f := range before {
				if err := f(c.Context()); err != nil {
					return err
				}
			}
			return a.asAdmin(c.Context(), args[0], do)
		},
	}
	if user != nil {
		c.Flags().StringVarP(user, "username", "u", "", "the account")
		alias(c, "username", "name")
	}
	return c
}

// checkUser refuses what PostgreSQL would cut off or misread.
func checkUser(name string) error {
	switch {
	case name == "":
		return usage("missing --username").hints("such as --username myuser")
	case len(name) > 63:
		return usage("the name of an account has at most 63 bytes, and %q has %d", name, len(name)).hints("such as --username myuser")
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return usage("the name of an account cannot have control characters, and must be UTF-8").hints("such as --username myuser")
	}
	return nil
}

func (a *app) asAdmin(ctx context.Context, cluster string, do func(context.Context, *admin) error) error {
	_, c, err := a.cluster(ctx, cluster)
	if err != nil {
		return err
	}
	if c, err = a.running(ctx, c); err != nil {
		return err
	}
	rt, err := a.runtime(ctx)
	if err != nil {
		return err
	}
	x, err := newAdmin(ctx, func(ctx context.Context, database string) (*pgx.Conn, error) { return rt.Admin(ctx, c, database) })
	if err != nil {
		return err
	}
	defer x.c.Close(context.WithoutCancel(ctx))
	x.cluster = cluster
	return do(ctx, x)
}

func newCreateAccountCommand(a *app) *cobra.Command {
	var user, password, file string
	var verifier string
	chosen := false
	cmd := accountCommand(a, "create-account", "Make an account",
		"  kbcli cluster create-account my-pg --username myuser\n  kbcli cluster create-account my-pg --username myuser --password-file secret.txt",
		&user, func(ctx context.Context, x *admin) error {
			// A verifier has no character that a literal would have to escape.
			_, err := x.c.Exec(ctx, "CREATE ROLE "+ident(user)+" LOGIN PASSWORD '"+verifier+"'")
			if err != nil {
				return err
			}
			if err := x.follow13(ctx, user); err != nil {
				a.warn("what %s makes is not reached by all who have a role: %v", user, err)
			}
			if chosen {
				result("created user: " + user).write(a.stdio.Out)
				return nil
			}
			a.note(rememberAlert)
			result("created user: " + user + ", with password: " + password).write(a.stdio.Out)
			return nil
		}, func(context.Context) error {
			if file != "" {
				text, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				password = strings.TrimRight(string(text), "\r\n")
			} else if password != "" {
				a.note("note: a password on the command line can be seen by others on this machine: use --password-file")
			}
			if chosen = password != ""; !chosen {
				password = randomPassword()
			}
			var err error
			verifier, err = scramVerifier(password)
			return err
		})
	cmd.Flags().StringVarP(&password, "password", "p", "", "the password (default ten random letters and digits)")
	cmd.Flags().StringVar(&file, "password-file", "", "a file with the password")
	cmd.MarkFlagsMutuallyExclusive("password", "password-file")
	return cmd
}

func newDeleteAccountCommand(a *app) *cobra.Command {
	var user string
	var approved bool
	c := accountCommand(a, "delete-account", "Delete an account that owns nothing",
		"  kbcli cluster delete-account my-pg --username myuser",
		&user, func(ctx context.Context, x *admin) error {
			if _, err := oneAccount(ctx, x.c, user); err != nil {
				return err
			}
			if err := x.dropAccount(ctx, user); err != nil {
				return err
			}
			result("deleted user: " + user).write(a.stdio.Out)
			return nil
		}, func(ctx context.Context) error { return a.confirm(ctx, []string{user}, approved) })
	approveFlag(c, &approved)
	return c
}

// oneAccount misses an account that is not there, before anything is changed.
func oneAccount(ctx context.Context, c *pgx.Conn, user string) (account, error) {
	all, err := accounts(ctx, c, user)
	if err != nil {
		return account{}, err
	}
	if len(all) == 0 {
		return account{}, missing("account %q not found", user)
	}
	return all[0], nil
}

func newListAccountsCommand(a *app) *cobra.Command {
	var output string
	c := accountCommand(a, "list-accounts", "List accounts", "  kbcli cluster list-accounts my-pg", nil,
		func(ctx context.Context, x *admin) error {
			all, err := accounts(ctx, x.c, "")
			if err != nil {
				return err
			}
			switch output {
			case "", "wide":
				accountBox(all).write(a.stdio.Out)
				return nil
			case "name":
				for _, x := range all {
					a.say("%s", x.Username)
				}
				return nil
			}
			if all == nil {
				all = []account{}
			}
			return a.value(output, map[string]any{"items": all})
		})
	outputFlag(c, &output, listForms)
	return c
}

func newDescribeAccountCommand(a *app) *cobra.Command {
	var user, output string
	c := accountCommand(a, "describe-account", "Show an account", "  kbcli cluster describe-account my-pg --username myuser", &user,
		func(ctx context.Context, by *admin) error {
			x, err := oneAccount(ctx, by.c, user)
			if err != nil {
				return err
			}
			switch output {
			case "", "wide":
				accountBox([]account{x}).write(a.stdio.Out)
				return nil
			case "name":
				a.say("%s", x.Username)
				return nil
			}
			return a.value(output, x)
		})
	outputFlag(c, &output, describeForms)
	return c
}

func accountBox(all []account) *box {
	b := &box{header: []string{"USERNAME", "ROLE", "EXPIRED", "MEMBER OF"}}
	for _, x := range all {
		b.add(x.Username, x.Role, x.Expired, strings.Join(x.MemberOf, ", "))
	}
	return b
}

func newGrantRoleCommand(a *app) *cobra.Command {
	return roleCommand(a, "grant-role", "Give an account a role", "granted role %s to user: %s", false)
}

func newRevokeRoleCommand(a *app) *cobra.Command {
	return roleCommand(a, "revoke-role", "Take a role from an account", "revoked role %s from user: %s", true)
}

func roleCommand(a *app, use, short, message string, revoke bool) *cobra.Command {
	var user, text, role string
	c := accountCommand(a, use, short, "  kbcli cluster "+use+" my-pg --username myuser --role READWRITE", &user,
		func(ctx context.Context, x *admin) error {
			who, err := oneAccount(ctx, x.c, user)
			if err != nil {
				return err
			}
			if err := x.setRole(ctx, role, &who, revoke); err != nil {
				return err
			}
			result(fmt.Sprintf(message, role, user)).write(a.stdio.Out)
			return nil
		}, func(context.Context) (err error) {
			role, err = parseRole(text)
			return err
		})
	c.Flags().StringVarP(&text, "role", "r", "", "SUPERUSER, READWRITE or READONLY")
	c.Long = short + `.

SUPERUSER   everything.
READWRITE   reading and writing all tables of every database, and creating in their
            schemas public. On PostgreSQL 13, the tables of these schemas only.
READONLY    reading the same.

That holds for what is made later too, and for databases that are made later of
template1. Taking READWRITE away takes reading away with it.`
	_ = c.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{roleSuperuser, roleReadWrite, roleReadOnly}, cobra.ShellCompDirectiveNoFileComp))
	return c
}
