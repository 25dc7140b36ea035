// SPDX-License-Identifier: Apache-2.0

package checkup

import "strings"

// Operator is what is known of the operator of a Kubernetes.
type Operator struct {
	Namespace    string // where it is installed
	Err          error  // it could not be looked for
	Down         error  // why it does not act; nil: it does
	Wanted, Runs int    // of its pods, those that there should be and those that serve
	Clusters     int    // that it has to look after

	Image, Own string // the image that it runs, and the version of this program
}

// Findings are operator-running and operator-version; the first alone where it does not run.
func (o *Operator) Findings() []Finding {
	const check = "operator-running"
	pods := "kubectl get pods -n " + o.Namespace
	switch {
	case o.Err != nil:
		return []Finding{warn(check, "kubectl auth can-i get deployments.apps -n "+o.Namespace, "whether it runs is not known: %v", o.Err)}
	case o.Down != nil && o.Wanted == 0 && o.Image == "":
		return []Finding{fail(check, "kbcli kubeblocks install", "%v", o.Down)}
	case o.Down != nil:
		return []Finding{fail(check, pods, "%v: clusters go on, and nothing is made, restored, grown or removed", o.Down)}
	case o.Runs < o.Wanted:
		return []Finding{warn(check, pods, "%d of its %s", o.Runs, count(o.Wanted, "pod")+" run"), o.version()}
	}
	return []Finding{pass(check, "%s in namespace %s", count(o.Runs, "pod"), o.Namespace), o.version()}
}

func (o *Operator) version() Finding {
	const check = "operator-version"
	_, tag, _ := strings.Cut(o.Image[strings.LastIndexByte(o.Image, '/')+1:], ":")
	tag, _, _ = strings.Cut(tag, "@")
	switch {
	case tag == o.Own || tag == "v"+o.Own || "v"+tag == o.Own:
		return pass(check, "%s, as this program", tag)
	case tag == "" || o.Own == "" || o.Own == "devel":
		return pass(check, "image %s; this program is %s", o.Image, o.Own)
	}
	return warn(check, "kbcli kubeblocks upgrade", "it runs the image %s, and this program is %s", o.Image, o.Own)
}

// Instances is what is known of the pods of a cluster.
type Instances struct {
	Names
	Err     error // they could not be listed
	Stopped bool  // as somebody asked for
	Wanted  int
	Serve   []string // that are ready
	Others  []string // with what is the matter: "my-pg-postgresql-1 is CrashLoopBackOff"
	Primary string
}

// Findings are instances-running.
func (i *Instances) Findings() []Finding {
	const check = "instances-running"
	list := "kbcli cluster list-instances " + i.Cluster + " -n " + i.Namespace
	others := ""
	if len(i.Others) > 0 {
		others = ": " + strings.Join(i.Others, ", ")
	}
	switch {
	case i.Err != nil:
		return []Finding{warn(check, list, "whether they run is not known: %v", i.Err)}
	case i.Stopped:
		return []Finding{pass(check, "the cluster is stopped, as was asked for")}
	case i.Primary == "":
		return []Finding{fail(check, list, "none of %s takes writes%s", count(i.Wanted, "server"), others)}
	case len(i.Serve) < i.Wanted || len(i.Others) > 0:
		return []Finding{warn(check, list, "%d of %s serve%s", len(i.Serve), count(i.Wanted, "server"), others)}
	}
	return []Finding{pass(check, "%s, the primary is %s", count(len(i.Serve), "server"), i.Primary)}
}
