// Command loopback mounts a directory through go-fuse's own loopback
// filesystem: the least that any FUSE filesystem in Go costs, for comparison.
// With -passthrough=false reads and writes reach the process, as those of a
// filesystem with storage of its own do; else the kernel does them by itself.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

func main() {
	passthrough := flag.Bool("passthrough", true, "let the kernel read and write the files by itself")
	flag.Parse()
	if flag.NArg() != 2 {
		log.Fatal("use: loopback MNT DIR")
	}
	root, err := fs.NewLoopbackRoot(flag.Arg(1))
	if err != nil {
		log.Fatal(err)
	}
	second := time.Second // as in go-fuse's own example
	opts := &fs.Options{
		AttrTimeout: &second, EntryTimeout: &second, NullPermissions: true,
		MountOptions: fuse.MountOptions{DirectMount: true, FsName: flag.Arg(1), Name: "loopback"},
	}
	if !*passthrough {
		opts.MountOptions.DisabledCapabilities = fuse.CAP_PASSTHROUGH
	}
	server, err := fs.Mount(flag.Arg(0), root, opts)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s is mounted\n", flag.Arg(0))
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		if err := server.Unmount(); err != nil {
			log.Print(err)
		}
	}()
	server.Wait()
}
