package opencl

// Info is what a device says of itself.
type Info struct {
	ID          string `json:"id"` // PLATFORM.DEVICE, from 0, in the order of the drivers
	Name        string `json:"name"`
	Vendor      string `json:"vendor"`
	Platform    string `json:"platform"`
	Version     string `json:"version"` // of OpenCL
	Driver      string `json:"driver"`
	Type        string `json:"type"`   // gpu, cpu, accelerator, other
	Memory      int64  `json:"memory"` // bytes
	LocalMemory int64  `json:"local_memory"`
	MaxAlloc    int64  `json:"max_alloc"` // bytes of one buffer
	Units       int    `json:"units"`
	MaxGroup    int    `json:"max_group"` // work items of one group
}
