package offload

import (
	_ "embed"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"quernfs/internal/wire"
	"quernfs/offload/jobfile"
	"quernfs/offload/kernels"
)

//go:embed README.txt
var readmeText string

// readme is /.compute/README, with a line for each kernel that comes with quern.
var readme = strings.Replace(readmeText, "KERNELS\n", bundledText(), 1)

func bundledText() string {
	var b strings.Builder
	for _, k := range kernels.Bundled {
		fmt.Fprintf(&b, "  %-10s %s\n", k.Name, k.About)
	}
	return b.String()
}

// needsTasks are the files of a job that are made from its tasks, too.
var needsTasks = map[string]bool{"plan": true, "usage": true, "provenance": true}

// jobText is what the file called what says of a job.
func jobText(what string, j *wire.Job, tasks []*wire.Task, now time.Time) string {
	switch what {
	case "spec":
		return string(j.Spec)
	case "state":
		return j.State + "\n"
	case "reason":
		return j.Reason + "\n"
	case "events":
		var b strings.Builder
		for _, e := range j.Events {
			fmt.Fprintf(&b, "%s %s\n", stamp(e.TimeNs), e.Text)
		}
		return b.String()
	case "failed":
		var b strings.Builder
		for _, t := range tasks {
			what := count(len(t.Inputs), "file")
			if len(t.Inputs) == 1 {
				what = t.Inputs[0].Path
			}
			fmt.Fprintf(&b, "%d\t%s\t%s\t%s\n", t.N, dash(t.Host), what, t.Reason)
		}
		return b.String()
	case "plan":
		return planText(j, tasks)
	case "provenance":
		return provenanceText(j, tasks)
	case "usage":
		return usageText(j, tasks, now)
	}
	return ""
}

func planText(j *wire.Job, tasks []*wire.Task) string {
	var b strings.Builder
	fmt.Fprintf(&b, "kernel %s, %s\n", j.Kernel, count(len(tasks), "task"))
	fmt.Fprintf(&b, "%-6s %-6s %-10s %-7s %-16s %8s  %s\n", "TASK", "PHASE", "STATE", "ATTEMPT", "HOST", "BYTES", "INPUTS")
	for _, t := range tasks {
		var bytes uint64
		for _, in := range t.Inputs {
			bytes += inputBytes(in)
		}
		what := count(len(t.Inputs), "file")
		if len(t.Inputs) == 1 {
			what = t.Inputs[0].Path
		}
		fmt.Fprintf(&b, "%-6d %-6s %-10s %-7d %-16s %8d  %s\n", t.N, t.Phase, t.State, t.Attempt, dash(t.Host), bytes, what)
	}
	return b.String()
}

func provenanceText(j *wire.Job, tasks []*wire.Task) string {
	var b strings.Builder
	fmt.Fprintf(&b, "job %d %s spec sha256:%x\n", j.Id, j.Name, j.Digest)
	whole := func(s string) string { return s }
	spec, err := jobfile.Parse(j.Spec)
	if err != nil { // of another version of quern
		spec = &jobfile.Spec{}
	}
	for i, k := range j.Kernels {
		phase := "map"
		if i > 0 {
			phase = phaseReduce
		}
		fmt.Fprintf(&b, "%s kernel %s sha256:%s\n", phase, k.Name, hex.EncodeToString(k.Digest))
		writeAsked(&b, "  ", k, stepOf(spec, phase), whole)
		for _, f := range k.Files {
			fmt.Fprintf(&b, "  file %s sha256:%s\n", f.Name, hex.EncodeToString(f.Digest))
		}
	}
	if k := j.Combine; k != nil {
		fmt.Fprintf(&b, "combine kernel %s sha256:%s\n", k.Name, hex.EncodeToString(k.Digest))
		if spec.Combine != nil {
			writeAsked(&b, "  ", k, jobfile.Inherit(*spec.Combine, spec.Map), whole)
		}
	}
	for _, t := range tasks {
		fmt.Fprintf(&b, "task %d %s attempt %d on %s device %s\n", t.N, t.Phase, t.Attempt, dash(t.Host), dash(t.Device))
		for _, in := range t.Inputs {
			if in.Ino == 0 {
				fmt.Fprintf(&b, "  part %s\n", in.Path)
				continue
			}
			fmt.Fprintf(&b, "  ino %d version %d bytes %d %s\n", in.Ino, in.Version, in.Size, in.Path)
		}
	}
	return b.String()
}

func usageText(j *wire.Job, tasks []*wire.Task, now time.Time) string {
	var b strings.Builder
	var in, out, peak, attempts, local, remote, remembered uint64
	var cpu, busy, device time.Duration
	var cycles uint64
	for _, t := range tasks {
		in += t.BytesIn
		out += t.BytesOut
		if t.MemoJob != 0 {
			remembered++
		}
		local += t.BytesLocal
		remote += t.BytesRemote
		peak = max(peak, t.PeakMemory)
		attempts += uint64(t.Attempt)
		cpu += time.Duration(t.CpuNs)
		device += time.Duration(t.DeviceNs)
		cycles += t.Cycles
		busy += elapsed(t.StartedNs, t.EndedNs, now)
	}
	fmt.Fprintf(&b, "tasks %d\ndone %d\nremembered %d\nattempts %d\n", j.Tasks, j.TasksDone, remembered, attempts)
	fmt.Fprintf(&b, "wall_seconds %.3f\ntask_seconds %.3f\ncpu_seconds %.3f\n", elapsed(j.SubmittedNs, j.EndedNs, now).Seconds(), busy.Seconds(), cpu.Seconds())
	fmt.Fprintf(&b, "bytes_in %d\nbytes_local %d\nbytes_remote %d\nbytes_out %d\npeak_memory %d\n", in, local, remote, out, peak)
	deviceUsage(&b, device, cycles)
	return b.String()
}

// taskText is what the file called what says of a task.
func taskText(what string, t *wire.Task, now time.Time) string {
	switch what {
	case "state":
		if t.Reason != "" {
			return t.State + ": " + t.Reason + "\n"
		}
		return t.State + "\n"
	case "host":
		return t.Host + "\n"
	case "device":
		return t.Device + "\n"
	case "attempt":
		return fmt.Sprintf("%d\n", t.Attempt)
	case "exit":
		return fmt.Sprintf("%d\n", t.Exit)
	case "stdout":
		return tailText(t.StdoutTail, t.StdoutBytes)
	case "stderr":
		return tailText(t.StderrTail, t.StderrBytes)
	case "usage":
		var b strings.Builder
		fmt.Fprintf(&b, "task_seconds %.3f\ncpu_seconds %.3f\nbytes_in %d\nbytes_local %d\nbytes_remote %d\nbytes_out %d\npeak_memory %d\n",
			elapsed(t.StartedNs, t.EndedNs, now).Seconds(), time.Duration(t.CpuNs).Seconds(), t.BytesIn, t.BytesLocal, t.BytesRemote, t.BytesOut, t.PeakMemory)
		deviceUsage(&b, time.Duration(t.DeviceNs), t.Cycles)
		return b.String()
	}
	return ""
}

// tailText is the end of what a task has printed, which says if it is not all.
func tailText(tail []byte, total int64) string {
	if n := total - int64(len(tail)); n > 0 {
		return fmt.Sprintf("[the first %d bytes are not kept here]\n%s", n, tail)
	}
	return string(tail)
}

// deviceUsage adds what was used of devices: the time that kernels ran there, or on
// a simulated one the time that its cycles would take.
func deviceUsage(b *strings.Builder, device time.Duration, cycles uint64) {
	if device > 0 {
		fmt.Fprintf(b, "device_seconds %.6f\n", device.Seconds())
	}
	if cycles > 0 {
		fmt.Fprintf(b, "cycles %d\n", cycles)
	}
}

// hostText is what the file called what says of a host.
func hostText(what string, n *wire.NodeStatus) string {
	switch what {
	case "devices":
		return devicesText(n) + describeExec(n.Node.Exec)
	case "load":
		state := "alive"
		if !n.Alive {
			state = "silent"
		}
		return fmt.Sprintf("%s busy=%d slots=%d\n", state, n.Busy, n.Slots)
	}
	return ""
}

// devicesText has a line for each device: what it is, how it fares, and why.
func devicesText(n *wire.NodeStatus) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cpu runtimes=%s slots=%d", dash(strings.Join(n.Node.Runtimes, ",")), n.Slots)
	if n.Speed > 0 {
		fmt.Fprintf(&b, " speed=%d%%", n.Speed)
	}
	b.WriteByte('\n')
	for _, d := range n.Devices {
		fmt.Fprintf(&b, "%s state=%s busy=%d slots=%d type=%s memory=%d units=%d model=%q driver=%q", d.Name, d.State, d.Busy, d.Slots, dash(d.Type), d.Memory, d.Units, d.Model, d.Driver)
		if d.Simulated {
			b.WriteString(" simulated")
		}
		if d.Reason != "" {
			fmt.Fprintf(&b, " reason=%q", d.Reason)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// elapsed is the time from start to end, or to now if it has not ended.
func elapsed(start, end int64, now time.Time) time.Duration {
	if start == 0 {
		return 0
	}
	if end == 0 {
		end = now.UnixNano()
	}
	return max(0, time.Duration(end-start))
}

func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.000Z") }

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
