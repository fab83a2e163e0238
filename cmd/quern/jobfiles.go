package main

import (
	"context"

	"quernfs/fs"
	"quernfs/offload"
)

// jobFiles is the filesystem as jobs see it: it joins fs and offload, which do
// not know each other.
type jobFiles struct{ *fs.FS }

var _ offload.Files = jobFiles{}

func (f jobFiles) OpenInode(ctx context.Context, ino uint64) (offload.File, error) {
	return asJobFile(f.FS.OpenInode(ctx, ino))
}

func (f jobFiles) Create(ctx context.Context, dir uint64, name string, mode uint32) (offload.File, error) {
	return asJobFile(f.FS.Create(ctx, dir, name, mode))
}

func (f jobFiles) Where(ctx context.Context, ino uint64) (map[uint32]uint64, error) {
	where, err := f.FS.Where(ctx, ino)
	out := make(map[uint32]uint64, len(where))
	for server, n := range where {
		out[server] = uint64(max(n, 0))
	}
	return out, err
}

func (f jobFiles) Layout(ctx context.Context, ino uint64) ([]offload.Piece, error) {
	pieces, err := f.FS.Layout(ctx, ino)
	out := make([]offload.Piece, len(pieces))
	for i, p := range pieces {
		out[i] = offload.Piece{Off: uint64(p.Off), Len: uint64(p.Len), Block: p.Block, Servers: p.Servers}
	}
	return out, err
}

type jobFile struct{ fs.File }

func (f jobFile) Sync(ctx context.Context) error { return f.Flush(ctx) }

func asJobFile(f fs.File, err error) (offload.File, error) {
	if err != nil {
		return nil, err
	}
	return jobFile{f}, nil
}

var (
	_ fs.Attributes = (*offload.Overlay)(nil)
	_ fs.Rules      = (*offload.Overlay)(nil)
)
