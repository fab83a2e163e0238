package place

import "time"

// Agent is a host that runs tasks.
type Agent struct {
	Node     uint32
	Host     string
	Capacity Amount             // CPU and Memory of the host; 0: not told, no limit
	Free     Amount             // of these, now
	Network  float64            // bytes a second that it fetches from others; 0: not measured
	From     map[string]float64 // the same, by the host that is fetched from
	Read     float64            // bytes a second that it reads of its own; 0: not measured
	Store    float64            // bytes a second that outputs are written with; 0: not measured
	Lost     float64            // chance that an attempt here is lost
	Devices  []Device
}

// Device is what runs tasks on an agent.
type Device struct {
	Name        string // unique on the agent: "cpu", "opencl:0"
	Class       string // devices of one class run a kernel equally fast
	Runtimes    []string
	Capacity    Amount // Slots, GPU, GPUMemory
	Free        Amount // of these, now
	Process     float64
	Speed       float64 // of what runs here, where 1 is that of the class; 0: 1
	Running     []Running
	Warm        map[string]bool // kernels that need no warming up
	Differs     map[string]bool // digests of variants whose results are wrong here
	Simulated   bool
	Quarantined bool
}

// Running is a task under way on a device.
type Running struct {
	Until  time.Duration // predicted time until it ends
	Need   Amount
	User   string
	Job    uint64
	Kernel string
}

func (r *Running) need() Amount {
	if r.Need == (Amount{}) {
		return OneSlot
	}
	return r.Need
}
