//go:build linux && (amd64 || arm64)

package opencl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
)

// Numbers of cl.h: what is asked of platforms and devices.
const (
	platformName = 0x0902

	deviceType          = 0x1000
	deviceUnits         = 0x1002
	deviceMaxGroup      = 0x1004
	deviceMaxAlloc      = 0x1010
	deviceMemory        = 0x101F
	deviceLocalMemory   = 0x1023
	deviceLittle        = 0x1026
	deviceAvailable     = 0x1027
	deviceCompiler      = 0x1028
	deviceName          = 0x102B
	deviceVendor        = 0x102C
	deviceDriverVersion = 0x102D
	deviceVersion       = 0x102F

	allTypes = 0xFFFFFFFF
)

// Device is one device of one platform.
type Device struct {
	lib          *Library
	platform, id uintptr
	Info
	Compiler bool // it compiles what it runs; else it takes what Load does
}

// Devices lists the devices of all platforms that can run kernels, in the order of the drivers. No platform at all is no error.
func (l *Library) Devices() ([]*Device, error) {
	platforms, err := l.list(getPlatformIDs, nil)
	if err != nil {
		return nil, err
	}
	var out []*Device
	for i, p := range platforms {
		name, err := l.text(getPlatformInfo, p, platformName)
		if err != nil {
			return nil, err
		}
		devices, err := l.list(getDeviceIDs, []uintptr{p, allTypes})
		if err != nil {
			return nil, fmt.Errorf("platform %s: %w", name, err)
		}
		for j, d := range devices {
			info, compiler, usable, err := l.describe(d)
			if err != nil {
				return nil, fmt.Errorf("platform %s: %w", name, err)
			}
			info.ID, info.Platform = fmt.Sprintf("%d.%d", i, j), name
			if usable {
				out = append(out, &Device{l, p, d, info, compiler})
			}
		}
	}
	return out, nil
}

// list calls a function that fills an array of handles and says how many there
// are.
func (l *Library) list(c call, before []uintptr) ([]uintptr, error) {
	n := new(uint32)
	var pin runtime.Pinner
	defer pin.Unpin()
	err := l.do(c, append(before[:len(before):len(before)], 0, 0, address(&pin, n))...)
	var e *Error
	if errors.As(err, &e) && e.notFound() || err == nil && *n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ids := make([]uintptr, min(*n, 1024))
	err = l.do(c, append(before[:len(before):len(before)], uintptr(len(ids)), address(&pin, &ids[0]), 0)...)
	return ids, err
}

func (l *Library) describe(d uintptr) (i Info, compiler, usable bool, err error) {
	for what, to := range map[uintptr]*string{deviceName: &i.Name, deviceVendor: &i.Vendor, deviceVersion: &i.Version, deviceDriverVersion: &i.Driver} {
		if *to, err = l.text(getDeviceInfo, d, what); err != nil {
			return i, false, false, err
		}
	}
	var kind, units, group, alloc, memory, local, little, available, compiles uint64
	for what, to := range map[uintptr]*uint64{
		deviceType: &kind, deviceUnits: &units, deviceMaxGroup: &group, deviceMaxAlloc: &alloc, deviceMemory: &memory,
		deviceLocalMemory: &local, deviceLittle: &little, deviceAvailable: &available, deviceCompiler: &compiles,
	} {
		if *to, err = l.number(getDeviceInfo, d, what); err != nil {
			return i, false, false, err
		}
	}
	switch {
	case kind&4 != 0:
		i.Type = "gpu"
	case kind&8 != 0:
		i.Type = "accelerator"
	case kind&2 != 0:
		i.Type = "cpu"
	default:
		i.Type = "other"
	}
	i.Units, i.MaxGroup, i.MaxAlloc, i.Memory, i.LocalMemory = int(units), int(group), int64(alloc), int64(memory), int64(local)
	return i, compiles != 0, little != 0 && available != 0, nil
}

func (l *Library) text(c call, object, what uintptr) (string, error) {
	b, err := l.info(c, object, what)
	return strings.TrimSpace(strings.TrimRight(string(b), "\x00")), err
}

// number reads a cl_uint, cl_ulong or size_t.
func (l *Library) number(c call, object, what uintptr) (uint64, error) {
	b, err := l.info(c, object, what)
	if err == nil && len(b) != 4 && len(b) != 8 {
		err = fmt.Errorf("%s %#x: a number of %d bytes", callNames[c], what, len(b))
	}
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(append(b, 0, 0, 0, 0)[:8]), nil
}
