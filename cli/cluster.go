// SPDX-License-Identifier: Apache-2.0

package cli

import "github.com/spf13/cobra"

func newClusterCommand(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "cluster",
		Short: "Make clusters, save them, and bring them back",
		Example: `  kbcli cluster create my-pg
  kbcli cluster backup my-pg
  kbcli cluster describe my-pg`,
	},
		newClusterCreateCommand(a),
		newClusterListCommand(a),
		newClusterDescribeCommand(a),
		newClusterDeleteCommand(a),
		newClusterStartCommand(a),
		newClusterStopCommand(a),
		newClusterRestartCommand(a),
		newClusterAttachCommand(a),
		newClusterDetachCommand(a),
		newClusterConnectCommand(a),
		newListInstancesCommand(a),
		newListEventsCommand(a),
		newClusterLogsCommand(a),
		newHistoryCommand(a),

		newListPolicyCommand(a),
		newEditPolicyCommand(a),

		newBackupCommand(a),
		newListBackupCommand(a),
		newDescribeBackupCommand(a),
		newVerifyBackupCommand(a),
		newDeleteBackupCommand(a),
		newExpireCommand(a),
		newRestoreCommand(a),

		newCreateAccountCommand(a),
		newDeleteAccountCommand(a),
		newListAccountsCommand(a),
		newDescribeAccountCommand(a),
		newGrantRoleCommand(a),
		newRevokeRoleCommand(a),
	)
}
