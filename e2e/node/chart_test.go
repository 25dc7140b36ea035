// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/kbcli/kbcli/internal/testkube"
)

// TestInstallVerbs: the command line installs the chart on a node whose snapshots are
// somebody else's, the operators run, settings change, and it is taken away again. Its file is
// the first of the folder: the other tests install on the same node, by hand.
func TestInstallVerbs(t *testing.T) {
	k := testkube.Node(t)
	kbcli := func(args ...string) (string, error) {
		cmd := exec.Command(k.Program(), args...)
		contextName := strings.TrimSpace(k.Kubectl(t, "config", "current-context"))
		cmd.Env = append(cmd.Environ(), "KBCLI_STATE_DIR="+t.TempDir(), "KBCLI_CONTEXT="+contextName, "KUBECONFIG="+k.Kubeconfig)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	run := func(want string, args ...string) string {
		t.Helper()
		out, err := kbcli(args...)
		if err != nil || !strings.Contains(out, want) {
			logs, lerr := k.Try("", "-n", "kb-system", "logs", "deploy/kubeblocks", "--tail=30")
			t.Fatalf("kbcli %s: %v, and %q is not in\n%s\n%s\n%v", strings.Join(args, " "), err, want, out, logs, lerr)
		}
		return out
	}
	image, tag, _ := strings.Cut(testkube.KbcliImage, ":")
	run("KubeBlocks test installed to namespace kb-system SUCCESSFULLY!", "kubeblocks", "install", "--timeout", "4m",
		"--set", "snapshot-controller.enabled=true,image.pullPolicy=Never,image.repository="+image+",image.tag="+tag,
		"--set", "postgresql.image="+strings.Replace(testkube.PostgreSQLImage, ":15", ":{major}", 1))
	if got := k.Kubectl(t, "-n", "kb-system", "get", "deployment", "kubeblocks", "-o", "jsonpath={.status.availableReplicas}"); got != "2" {
		t.Errorf("%s operators run", got)
	}
	list := run("snapshot-controller", "addon", "list")
	for line := range strings.Lines(list) {
		if f := strings.Fields(line); f[0] == "snapshot-controller" && f[2] != "Enabled" {
			t.Errorf("the addon is not enabled:\n%s", list)
		}
	}
	if got := k.Kubectl(t, "-n", "kb-system", "get", "deployments", "-o", "name"); strings.Contains(got, "snapshot") {
		t.Errorf("beside the node's own snapshot controller there is %s", got)
	}
	run("KubeBlocks test is installed in namespace kb-system, with 0 clusters.\nOf 2 operators 2 run.", "kubeblocks", "status")
	out := run("KubeBlocks has been upgraded  SUCCESSFULLY!", "kubeblocks", "config", "--set", "dataProtection.enableVolumeSnapshot=true", "--set", "replicas=1")
	t.Log(out)
	run("dataProtection.enableVolumeSnapshot        true", "kubeblocks", "describe-config")
	if out, err := kbcli("kubeblocks", "config", "--set", "dataProtection.enableVolumSnapshot=true"); err == nil || !strings.Contains(out, `did you mean "dataProtection.enableVolumeSnapshot"?`) {
		t.Errorf("%v, %s", err, out)
	}
	run("BackupRepo served created", "backuprepo", "create", "served", "--provider", "pvc", "--storage-class", testkube.StorageClass, "--capacity", "300Mi")
	k.Kubectl(t, "-n", "kb-system", "get", "pod", "repository-served-0")
	run("Uninstall KubeBlocks done", "kubeblocks", "uninstall", "--auto-approve")
	left := k.Kubectl(t, "-n", "kb-system", "get", "all,configmaps,leases,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets,pvc,secrets", "-o", "name")
	for _, kept := range []string{"persistentvolumeclaim/served", "secret/repository-served", "secret/kubeblocks-repositories"} {
		if !strings.Contains(left, kept+"\n") {
			t.Errorf("%s is gone", kept)
		}
		left = strings.Replace(left, kept+"\n", "", 1)
	}
	if left != "configmap/kube-root-ca.crt\nserviceaccount/default\n" {
		t.Errorf("after uninstall there is\n%s", left)
	}
	k.Kubectl(t, "get", "addons.extensions.kubeblocks.io", "snapshot-controller")
	k.Kubectl(t, "delete", "addons,backuprepos", "--all")
	k.Kubectl(t, "-n", "kb-system", "delete", "pvc/served", "secret/kubeblocks-repositories")
}
