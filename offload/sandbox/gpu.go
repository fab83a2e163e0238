package sandbox

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// GPU is one NVIDIA graphics processor of this host, as its driver names it.
type GPU struct {
	UUID   string `json:"uuid"`
	Name   string `json:"name"`
	Device string `json:"device"` // /dev/nvidiaN
	Memory uint64 `json:"memory"` // bytes; 0: not known
}

// gpuPool gives whole processors to runs.
type gpuPool struct {
	all    []GPU
	shared []string // devices that every user of one needs

	mu   sync.Mutex
	free []bool // beside all; guarded by mu
}

// find looks for processors below root ("/").
func (p *gpuPool) find(root string) {
	files, _ := filepath.Glob(filepath.Join(root, "proc/driver/nvidia/gpus/*/information"))
	slices.Sort(files)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		g, ok := parseGPU(string(text))
		if !ok {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, g.Device)); err != nil {
			continue // not given to this container
		}
		p.all = append(p.all, g)
		p.free = append(p.free, true)
	}
	if len(p.all) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), smiLimit)
	defer cancel()
	out, _ := exec.CommandContext(ctx, "nvidia-smi", "--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits").Output()
	memory := parseMemory(string(out))
	for i := range p.all {
		p.all[i].Memory = memory[p.all[i].UUID]
	}
	for _, d := range []string{"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"} {
		if _, err := os.Stat(filepath.Join(root, d)); err == nil {
			p.shared = append(p.shared, d)
		}
	}
}

// smiLimit bounds nvidia-smi, which hangs when a driver does.
const smiLimit = 10 * time.Second

// parseMemory reads what nvidia-smi prints: UUID, MiB. The result is in bytes.
func parseMemory(text string) map[string]uint64 {
	out := map[string]uint64{}
	for line := range strings.Lines(text) {
		uuid, mib, ok := strings.Cut(strings.TrimSpace(line), ", ")
		if n, err := strconv.ParseUint(mib, 10, 32); ok && err == nil {
			out[uuid] = n << 20
		}
	}
	return out
}

// parseGPU reads /proc/driver/nvidia/gpus/*/information.
func parseGPU(text string) (g GPU, ok bool) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "Model":
			g.Name = value
		case "GPU UUID":
			g.UUID = value
		case "Device Minor":
			if n, err := strconv.ParseUint(value, 10, 16); err == nil {
				g.Device = "/dev/nvidia" + strconv.FormatUint(n, 10)
			}
		}
	}
	return g, strings.HasPrefix(g.UUID, "GPU-") && !strings.ContainsAny(g.UUID, "?, ") && g.Device != ""
}

// GPUs are those of this host.
func (h *Host) GPUs() []GPU { return slices.Clone(h.gpus.all) }

// TakeGPUs reserves n of them with at least so many bytes of memory, or says
// that they are not free now. GiveGPUs returns them.
func (h *Host) TakeGPUs(n int, memory uint64) (got []GPU, ok bool) {
	p := &h.gpus
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.all {
		if p.free[i] && len(got) < n && p.all[i].Memory >= memory {
			got = append(got, p.all[i])
		}
	}
	if len(got) < n {
		return nil, false
	}
	for i := range p.all {
		if slices.Contains(got, p.all[i]) {
			p.free[i] = false
		}
	}
	return got, true
}

// GiveGPUs returns what TakeGPUs has given.
func (h *Host) GiveGPUs(got []GPU) {
	p := &h.gpus
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.all {
		if slices.Contains(got, p.all[i]) {
			p.free[i] = true
		}
	}
}

// TakeGPU reserves the processor of that UUID for what is no run, or says that it
// is in use. One that is not known is nobody else's. GiveGPU returns it.
func (h *Host) TakeGPU(uuid string) bool { return h.gpus.turn(uuid, true, false) }

// GiveGPU returns what TakeGPU has given.
func (h *Host) GiveGPU(uuid string) { h.gpus.turn(uuid, false, true) }

// turn makes a processor free or not, and says whether it was in the state from.
func (p *gpuPool) turn(uuid string, from, to bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.all, func(g GPU) bool { return g.UUID == uuid })
	if i < 0 {
		return true
	}
	was := p.free[i]
	p.free[i] = to
	return was == from
}

// Devices are the paths and the environment that a run needs to use them.
func (h *Host) Devices(got []GPU) (devices, env []string) {
	if len(got) == 0 {
		return nil, []string{"CUDA_VISIBLE_DEVICES="}
	}
	var ids []string
	for _, g := range got {
		devices = append(devices, g.Device)
		ids = append(ids, g.UUID)
	}
	return append(devices, h.gpus.shared...), []string{"CUDA_VISIBLE_DEVICES=" + strings.Join(ids, ",")}
}
