package offload

import (
	"slices"
	"testing"

	"quernfs/internal/wire"
)

// TestPlaceDevices: what placement is told of an agent's devices, and whose time
// a task takes.
func TestPlaceDevices(t *testing.T) {
	gpu := &wire.Device{Name: "opencl:0.0", Class: "opencl fast", Runtime: "opencl", State: DeviceReady, Slots: 1}
	ill := &wire.Device{Name: "opencl:0.1", Class: "opencl fast", Runtime: "opencl", State: DeviceQuarantined, Slots: 1}
	a := &agentState{node: 7, runtimes: []string{"wasm", "opencl"}, devices: []*wire.Device{gpu, ill}, tasks: map[attemptID]*taskState{}}
	if got := a.ownRuntimes(); !slices.Equal(got, []string{"wasm"}) {
		t.Errorf("the processors run %v", got)
	}
	all := a.placeDevices(true)
	if len(all) != 2 || all[0].Quarantined || !all[1].Quarantined || all[0].Free.Slots != 1 || all[0].Class != "opencl fast" {
		t.Errorf("%+v", all)
	}
	if all := a.placeDevices(false); all[0].Free.Slots != 0 || all[0].Capacity.Slots != 1 {
		t.Errorf("an agent that does not poll: %+v", all)
	}
	task := &wire.Task{Job: 1, Agent: 7, Runtime: "opencl", Device: "opencl:0.0"}
	if !a.idleDevice() || !onDevice(task) || onDevice(&wire.Task{}) || onDevice(&wire.Task{Runtime: "wasm"}) {
		t.Error("a device that is free is not idle, or a task is counted wrongly")
	}
	a.tasks[attemptID{1, 0, 1}] = &taskState{t: task}
	if a.idleDevice() {
		t.Error("a device that is busy, and one that is quarantined, are idle")
	}
	tm := &term{agents: map[uint32]*agentState{7: a}}
	for device, want := range map[string]string{"opencl:0.0": "opencl fast", "opencl:9.9": "opencl:9.9"} {
		if got := tm.classOf(&wire.Task{Agent: 7, Runtime: "opencl", Device: device}); got != want {
			t.Errorf("the class of %s is %q", device, got)
		}
	}
	if got := tm.classOf(&wire.Task{Agent: 7, Device: "cpu"}); got != classCPU {
		t.Errorf("the class of the processors is %q", got)
	}
	ref := &wire.KernelRef{Name: "k@1", Runtimes: []string{"wasm", "opencl"}, Rates: []uint64{5, 9}}
	if variantKey(ref, "") != kernelKey(ref) || variantKey(ref, "opencl") == kernelKey(ref) {
		t.Error("variants are learned under one name, or the module under two")
	}
	if hintOf(ref, "opencl") != 9 || hintOf(ref, "cuda") != 0 || hintOf(nil, "wasm") != 0 {
		t.Error("the hints are mixed up")
	}
}
