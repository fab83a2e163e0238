//go:build linux && cgo && cuda

package cudaworker

import (
	"fmt"

	"gorgonia.org/cu"

	"quernfs/offload/worker"
)

// gpu is one device of the driver.
type gpu struct {
	dev  cu.Device
	info worker.Device
}

// list describes the GPUs that the driver shows to this process.
func list() ([]gpu, error) {
	n, err := cu.NumDevices()
	if err != nil {
		return nil, fmt.Errorf("counting the GPUs: %w", err)
	}
	var out []gpu
	for i := range n {
		dev, err := cu.GetDevice(i)
		if err != nil {
			return nil, fmt.Errorf("GPU %d: %w", i, err)
		}
		info, err := describe(dev)
		if err != nil {
			return nil, fmt.Errorf("GPU %d: %w", i, err)
		}
		out = append(out, gpu{dev, info})
	}
	return out, nil
}

func describe(dev cu.Device) (d worker.Device, err error) {
	if d.Name, err = dev.Name(); err != nil {
		return d, err
	}
	id, err := dev.UUID()
	if err != nil {
		return d, err
	}
	if d.Memory, err = dev.TotalMem(); err != nil {
		return d, err
	}
	var major, minor, shared int
	for attribute, to := range map[cu.DeviceAttribute]*int{
		cu.ComputeCapabilityMajor: &major, cu.ComputeCapabilityMinor: &minor, cu.MaxSharedMemoryPerBlock: &shared,
		cu.MultiprocessorCount: &d.Units, cu.MaxThreadsPerBlock: &d.MaxGroup,
	} {
		if *to, err = dev.Attribute(attribute); err != nil {
			return d, err
		}
	}
	version := cu.Version() // 12020 is 12.2
	d.ID, d.Vendor, d.Platform, d.Type = "GPU-"+id.String(), "NVIDIA", "CUDA", "gpu"
	d.Driver = fmt.Sprintf("%d.%d", version/1000, version%1000/10)
	d.Version = fmt.Sprintf("compute %d.%d", major, minor)
	d.LocalMemory, d.MaxAlloc = int64(shared), d.Memory
	return d, nil
}
