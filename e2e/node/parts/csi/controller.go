// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer

	name, node string
	disks      disks
}

// internal is the gRPC error of err, nil for nil.
func internal(err error) error {
	if err == nil {
		return nil
	}
	return status.Error(codes.Internal, err.Error())
}

func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.name, VendorVersion: "1"}, nil
}

func (d *driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	service := &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE}
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{{Type: &csi.PluginCapability_Service_{Service: service}}}}, nil
}

func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (d *driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	r := &csi.ControllerGetCapabilitiesResponse{}
	for _, t := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
	} {
		rpc := &csi.ControllerServiceCapability_RPC{Type: t}
		r.Capabilities = append(r.Capabilities, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{Rpc: rpc}})
	}
	return r, nil
}

func (d *driver) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	want := max(r.GetCapacityRange().GetRequiredBytes(), smallest)
	image := d.disks.volume(r.GetName())
	have, err := size(image)
	if err != nil {
		return nil, internal(err)
	}
	if have < 0 {
		if err := d.fill(image, want, r.GetVolumeContentSource()); err != nil {
			return nil, err
		}
	}
	if err := grow(image, want); err != nil {
		return nil, internal(err)
	}
	have, err = size(image)
	if err != nil {
		return nil, internal(err)
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: r.GetName(), CapacityBytes: have, ContentSource: r.GetVolumeContentSource()}}, nil
}

// fill makes the image of a new volume.
func (d *driver) fill(image string, bytes int64, source *csi.VolumeContentSource) error {
	switch {
	case source.GetSnapshot() != nil:
		id := source.GetSnapshot().GetSnapshotId()
		if have, err := size(d.disks.snapshot(id)); err != nil || have < 0 {
			return status.Errorf(codes.NotFound, "snapshot %s", id)
		}
		return internal(copyImage(d.disks.snapshot(id), image))
	case source.GetVolume() != nil:
		id := source.GetVolume().GetVolumeId()
		if have, err := size(d.disks.volume(id)); err != nil || have < 0 {
			return status.Errorf(codes.NotFound, "volume %s", id)
		}
		return internal(d.disks.copyVolume(id, image))
	default:
		return internal(format(image, bytes))
	}
}

func (d *driver) DeleteVolume(_ context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	return &csi.DeleteVolumeResponse{}, internal(remove(d.disks.volume(r.GetVolumeId())))
}

func (d *driver) ValidateVolumeCapabilities(_ context.Context, r *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	confirmed := &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: r.GetVolumeCapabilities()}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: confirmed}, nil
}

func (d *driver) CreateSnapshot(_ context.Context, r *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	image := d.disks.snapshot(r.GetName())
	have, err := size(image)
	if err != nil {
		return nil, internal(err)
	}
	if have < 0 {
		if err := d.disks.copyVolume(r.GetSourceVolumeId(), image); err != nil {
			return nil, internal(err)
		}
	}
	st, err := os.Stat(image)
	if err != nil {
		return nil, internal(err)
	}
	return &csi.CreateSnapshotResponse{Snapshot: &csi.Snapshot{
		SnapshotId: r.GetName(), SourceVolumeId: r.GetSourceVolumeId(), SizeBytes: st.Size(),
		CreationTime: timestamppb.New(st.ModTime()), ReadyToUse: true,
	}}, nil
}

func (d *driver) DeleteSnapshot(_ context.Context, r *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	return &csi.DeleteSnapshotResponse{}, internal(remove(d.disks.snapshot(r.GetSnapshotId())))
}
