// SPDX-License-Identifier: Apache-2.0

// Command csi is a storage driver for tests, with everything that a volume of a cloud
// has: it is made on demand, grows while mounted, is cloned, and has snapshots that are
// taken in no time under load and are whole.
//
// A volume is an image file with XFS in it, on a directory that is XFS with reflinks. A
// snapshot is a reflink copy made while the volume's file system is frozen. XFS, because
// growing ext4 while mounted needs CAP_SYS_RESOURCE, which containers of CI lack.
//
// One process is what takes six elsewhere: the driver's three services, its registration
// with the kubelet, the provisioner and the resizer. All nodes of a test share the
// directory, as they would share a storage network; like there, a volume is on one node
// at a time, and another node is refused.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	snapclient "github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned"
	"google.golang.org/grpc"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

func main() {
	name := flag.String("name", "csi.kbcli.test", "of the driver")
	node := flag.String("node", "", "the node's name")
	dir := flag.String("dir", "", "where images lie: a directory on XFS with reflinks")
	root := flag.String("kubelet-root", "/var/lib/kubelet", "the kubelet's --root-dir")
	kubeconfig := flag.String("kubeconfig", "", "of an administrator")
	control := flag.Bool("control", true, "provision and resize too: one process of a cluster does")
	flag.Parse()
	if err := run(context.Background(), *name, *node, *dir, *root, *kubeconfig, *control); err != nil {
		klog.Fatal(err)
	}
}

func run(ctx context.Context, name, node, dir, root, kubeconfig string, control bool) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	// a dozen volumes at once are usual in a test, client-go's own limit is 5 requests a second
	config.QPS, config.Burst = 100, 200
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	snap, err := snapclient.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "mnt"), 0o750); err != nil {
		return err
	}
	d := &driver{name: name, node: node, disks: disks{dir}}
	socket := filepath.Join(root, "plugins", name, "csi.sock")
	ended := make(chan error)
	if err := serve(ended, socket, func(s *grpc.Server) {
		csi.RegisterIdentityServer(s, d)
		csi.RegisterControllerServer(s, d)
		csi.RegisterNodeServer(s, d)
	}); err != nil {
		return err
	}
	if err := serve(ended, filepath.Join(root, "plugins_registry", name+"-reg.sock"), func(s *grpc.Server) {
		registration.RegisterRegistrationServer(s, &registrar{name: name, socket: socket})
	}); err != nil {
		return err
	}
	if control {
		p := &provisioner{driver: d, kube: kube, snap: snap}
		go p.resizeForever(ctx)
		go controller.NewProvisionController(ctx, kube, name, p, controller.LeaderElection(false), controller.ResyncPeriod(time.Minute)).Run(ctx)
	}
	return <-ended
}

// serve answers on a socket until it fails, which ended hears.
func serve(ended chan<- error, socket string, register func(*grpc.Server)) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.UnaryInterceptor(logCall))
	register(s)
	go func() { ended <- s.Serve(l) }()
	return nil
}

func logCall(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	resp, err := next(ctx, req)
	text, jsonErr := json.Marshal(req)
	klog.InfoS("call", "method", info.FullMethod, "request", string(text), "err", errors.Join(err, jsonErr))
	return resp, err
}

// registrar tells the kubelet about the driver.
type registrar struct {
	registration.UnsafeRegistrationServer
	name, socket string
}

func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: r.name, Endpoint: r.socket, SupportedVersions: []string{"1.0.0"}}, nil
}

func (r *registrar) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	klog.InfoS("registration", "ok", s.PluginRegistered, "err", s.Error)
	return &registration.RegistrationStatusResponse{}, nil
}
