package sandbox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"quernfs/internal/rawtext"
)

// maxSpec bounds an encoded spec, in bytes; the kernel takes no more than 2 MiB
// of arguments and environment anyway.
const maxSpec = 4 << 20

// spec is what Main reads from its pipe:
//
//	length uint32 LE | JSON
type spec struct {
	Argv   []string
	File   string // the program; "": Argv[0], looked for in PATH if it has no slash
	Env    []string
	UID    uint32
	GID    uint32
	Groups []uint32
	Bound  []bound // what lies where the job's files were bound; another file: it does not begin
	SetIDs bool    // become UID, GID and Groups; else they are so already
	// Limits by rlimit; 0: as they are.
	Memory uint64 // address space, bytes
	Pids   uint64
	Size   uint64 // of one file, bytes
}

// bound is a path of the sandbox, and the file that is to lie there.
type bound struct {
	Path     string
	Dev, Ino uint64
}

// moved is the first path where another file lies; "": there is none.
func (s *spec) moved() string {
	for _, b := range s.Bound {
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
		fd, err := unix.Openat2(unix.AT_FDCWD, b.Path, &how)
		if err != nil {
			return b.Path
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		if err != nil || st.Dev != b.Dev || st.Ino != b.Ino {
			return b.Path
		}
	}
	return ""
}

func (s *spec) encode() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	body, err := rawtext.Marshal(s)
	if err != nil {
		return nil, err
	}
	if len(body) > maxSpec {
		return nil, fmt.Errorf("arguments and environment of %d bytes are too long", len(body))
	}
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...), nil
}

// decodeSpec reads one spec, whole, and checks it.
func decodeSpec(r io.Reader) (*spec, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("reading the spec: %w", err)
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxSpec {
		return nil, fmt.Errorf("a spec of %d bytes", n)
	}
	// Not n bytes at once: it may be a lie.
	body, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(body) < int(n) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("reading the spec: %w", err)
	}
	s := new(spec)
	if err := rawtext.Unmarshal(body, s); err != nil {
		return nil, fmt.Errorf("the spec: %w", err)
	}
	return s, s.check()
}

// check is what execve needs.
func (s *spec) check() error {
	if s.File != "" && (!path.IsAbs(s.File) || strings.ContainsRune(s.File, 0)) {
		return errors.New("the program's file is no absolute path")
	}
	if len(s.Argv) == 0 || s.Argv[0] == "" {
		return errors.New("no program is named")
	}
	for _, a := range s.Argv {
		if strings.ContainsRune(a, 0) {
			return errors.New("an argument contains a byte 0")
		}
	}
	for _, kv := range s.Env {
		if strings.ContainsRune(kv, 0) || strings.Index(kv, "=") < 1 {
			return errors.New("the environment is made of NAME=VALUE without a byte 0")
		}
	}
	return nil
}

// candidates are the files that argv[0] may stand for, in order.
func (s *spec) candidates() []string {
	name := s.Argv[0]
	if s.File != "" {
		return []string{s.File}
	}
	if strings.Contains(name, "/") {
		return []string{name}
	}
	search := ""
	for _, kv := range s.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	var out []string
	for dir := range strings.SplitSeq(search, ":") {
		if path.IsAbs(dir) {
			out = append(out, path.Join(dir, name))
		}
	}
	return out
}

// decodeInfo finds the process id in what bwrap writes to --info-fd.
func decodeInfo(text []byte) (pid int, err error) {
	var info struct {
		Pid int `json:"child-pid"`
	}
	if err := json.Unmarshal(text, &info); err != nil {
		return 0, fmt.Errorf("bwrap's information: %w", err)
	}
	if info.Pid <= 1 || info.Pid > 1<<22 {
		return 0, fmt.Errorf("bwrap names process %d", info.Pid)
	}
	return info.Pid, nil
}
