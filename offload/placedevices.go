package offload

import (
	"slices"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/place"
)

// variantKey is what run times of a variant are learned under.
func variantKey(ref *wire.KernelRef, runtime string) string {
	if runtime == "" || runtime == jobfile.RuntimeWasm {
		return kernelKey(ref)
	}
	return kernelKey(ref) + " " + runtime
}

// hintOf is how many bytes a second the kernel's manifest promises of a
// variant; 0: it says nothing.
func hintOf(ref *wire.KernelRef, runtime string) uint64 {
	if i := slices.Index(ref.GetRuntimes(), runtime); i >= 0 && i < len(ref.GetRates()) {
		return ref.Rates[i]
	}
	return 0
}

// onDevice says whether a task occupies a device rather than a slot.
func onDevice(x *wire.Task) bool { return isDevice(x.Runtime) }

// isDevice says whether what runs with a runtime occupies a device.
func isDevice(runtime string) bool { return slices.Contains(deviceRuntimes, runtime) }

// ownRuntimes are those that run on the agent's processors.
func (a *agentState) ownRuntimes() []string {
	return slices.DeleteFunc(slices.Clone(a.runtimes), func(r string) bool { return slices.Contains(deviceRuntimes, r) })
}

// placeDevices are the agent's devices as place wants them, without what runs
// there. polls: the agent waits for tasks now.
func (a *agentState) placeDevices(polls bool) (out []place.Device) {
	for _, w := range a.devices {
		d := place.Device{
			Name: w.Name, Class: w.Class, Runtimes: []string{w.Runtime}, Simulated: w.Simulated, Quarantined: w.State != DeviceReady,
			Capacity: place.Amount{Slots: int64(w.Slots)},
		}
		if polls {
			d.Free = d.Capacity
		}
		for _, digest := range w.Differs {
			if d.Differs == nil {
				d.Differs = map[string]bool{}
			}
			d.Differs[string(digest)] = true
		}
		out = append(out, d)
	}
	return out
}

// idleDevice says whether a device of the agent could take a task.
func (a *agentState) idleDevice() bool {
	for _, w := range a.devices {
		n := uint32(0)
		for _, x := range a.tasks {
			if x.t.Device == w.Name {
				n++
			}
		}
		if w.State == DeviceReady && n < w.Slots {
			return true
		}
	}
	return false
}

// classOf is the class of the device that a task ran on. mu is held.
func (t *term) classOf(x *wire.Task) string {
	if a := t.agents[x.Agent]; a != nil {
		for _, w := range a.devices {
			if w.Name == x.Device {
				return w.Class
			}
		}
	}
	if onDevice(x) {
		return x.Device // a device that is there no more
	}
	return classCPU
}
