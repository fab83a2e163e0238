package meta

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"golang.org/x/sys/unix"
)

// Disk is what the server's directory lies on: the state and the snapshots in
// FS, raft's log behind OpenLog. Zero is the operating system's; a simulation
// gives one that crashes.
type Disk struct {
	FS      vfs.FS
	OpenLog func(dir string, segment int, log hclog.Logger) (RaftLog, error)
}

// RaftLog is raft's log and its votes. What its methods have stored is durable
// when they return.
type RaftLog interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// real says that d is the operating system's.
func (d *Disk) real() bool { return d.FS == nil }

func (d *Disk) fs() vfs.FS {
	if d.real() {
		return vfs.Default
	}
	return d.FS
}

func (d *Disk) openLog(dir string, segment int, log hclog.Logger) (RaftLog, error) {
	if d.OpenLog != nil {
		return d.OpenLog(dir, segment, log)
	}
	db := new(metadb.BoltMetaDB)
	w, err := wal.Open(dir, wal.WithLogger(log), wal.WithMetaStore(db), wal.WithSegmentSize(segment))
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &walLog{w, db}, nil
}

// walLog closes the database of its log, which the log itself does not.
type walLog struct {
	*wal.WAL
	db *metadb.BoltMetaDB
}

func (l *walLog) Close() error { return errors.Join(l.WAL.Close(), l.db.Close()) }

// lock keeps other servers away until it is closed.
func (d *Disk) lock(path string) (io.Closer, error) {
	if !d.real() {
		return d.FS.Lock(path)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, errHeld
	}
	return f, nil
}

var errHeld = errors.New("another process holds it")

// makeDir makes a directory, for good.
func (d *Disk) makeDir(dir string) error {
	if _, err := d.fs().Stat(dir); err == nil {
		return nil
	}
	if err := d.fs().MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(dir))
}

// readFile reads a whole small file.
func (d *Disk) readFile(path string) ([]byte, error) {
	f, err := d.fs().Open(path)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(f)
	return text, errors.Join(err, f.Close())
}

// writeSynced replaces a file atomically and durably.
func (d *Disk) writeSynced(path string, data []byte) error {
	fs := d.fs()
	tmp := path + ".new"
	f, err := fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		fs.Remove(tmp)
		return err
	}
	if err := fs.Rename(tmp, path); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

func (d *Disk) syncDir(dir string) error {
	f, err := d.fs().OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
