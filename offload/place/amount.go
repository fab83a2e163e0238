package place

import "math"

// Amount is how much of a device, and of its host, something takes or has.
// Slots, GPU and GPUMemory are the device's, CPU and Memory are shared by all
// devices of an agent.
type Amount struct {
	Slots     int64 // tasks at once
	CPU       int64 // thousandths of a processor
	Memory    int64 // bytes
	GPU       int64 // thousandths of the device
	GPUMemory int64 // bytes
}

// unlimited stands for what an agent has not told of.
const unlimited = math.MaxInt64 / 4

// OneSlot is what a task needs that says nothing else.
var OneSlot = Amount{Slots: 1}

// Fits says whether a is no more than b.
func (a Amount) Fits(b Amount) bool {
	return a.Slots <= b.Slots && a.CPU <= b.CPU && a.Memory <= b.Memory && a.GPU <= b.GPU && a.GPUMemory <= b.GPUMemory
}

// Plus is a + b.
func (a Amount) Plus(b Amount) Amount {
	return Amount{a.Slots + b.Slots, a.CPU + b.CPU, a.Memory + b.Memory, a.GPU + b.GPU, a.GPUMemory + b.GPUMemory}
}

// Minus is a - b.
func (a Amount) Minus(b Amount) Amount {
	return Amount{a.Slots - b.Slots, a.CPU - b.CPU, a.Memory - b.Memory, a.GPU - b.GPU, a.GPUMemory - b.GPUMemory}
}

// share is the greatest part that a is of a dimension of all.
func (a Amount) share(all Amount) float64 {
	s := 0.0
	for _, d := range [][2]int64{{a.Slots, all.Slots}, {a.CPU, all.CPU}, {a.Memory, all.Memory}, {a.GPU, all.GPU}, {a.GPUMemory, all.GPUMemory}} {
		if d[0] > 0 && d[1] > 0 {
			s = max(s, float64(d[0])/float64(d[1]))
		}
	}
	return s
}

// device and host part an amount into what the device has and what its host has.
func (a Amount) device() Amount {
	return Amount{Slots: a.Slots, GPU: a.GPU, GPUMemory: a.GPUMemory}
}
func (a Amount) host() Amount { return Amount{CPU: a.CPU, Memory: a.Memory} }

// told replaces what an agent has not told of by unlimited.
func (a Amount) told() Amount {
	for _, p := range []*int64{&a.CPU, &a.Memory} {
		if *p == 0 {
			*p = unlimited
		}
	}
	return a
}
