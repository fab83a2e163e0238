package main

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/spf13/pflag"

	"quernfs/offload"
	"quernfs/offload/sandbox"
)

// execFlags say which programs of this host jobs may run.
type execFlags struct {
	allow   []string
	network bool
	system  []string
}

func (e *execFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVar(&e.allow, "exec-allow", nil, "a program that jobs may run on this host, as their owner and in a sandbox: a name such as python3, or a path; with * ? [a-z]; may be repeated ('*' alone: all; default: none)")
	flags.BoolVar(&e.network, "exec-network", false, "let such programs use the network, if their job asks for it")
	flags.StringArrayVar(&e.system, "exec-system", nil, "a further directory of this host that such programs may read, such as /opt/conda; may be repeated")
}

func (e *execFlags) check() error {
	for _, p := range e.allow {
		if err := sandbox.CheckPattern(p); err != nil {
			return usagef("--exec-allow: %w", err)
		}
	}
	for _, p := range e.system {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" {
			return usagef("--exec-system %s: a plain path from / is needed, and not / itself", p)
		}
	}
	return nil
}

// open is what the agent of this host may run; nil if nothing is allowed, or if
// there is no sandbox here, which the log tells.
func (e *execFlags) open(ctx context.Context, exe, dir string, log *slog.Logger) *offload.ExecConfig {
	if len(e.allow) == 0 {
		return nil
	}
	host, err := sandbox.Open(ctx, sandbox.Config{Dir: dir, Init: []string{exe, "worker", "exec"}, System: e.system})
	if err != nil {
		log.Warn("jobs cannot run programs on this host, though --exec-allow is given", "err", err)
		return nil
	}
	r := host.Report()
	log.Info("jobs can run programs", "allowed", e.allow, "memory_limit", r.Memory, "process_limit", r.Pids, "cpu_limit", r.CPU, "gpus", len(r.GPUs))
	return &offload.ExecConfig{Host: host, Allow: e.allow, Network: e.network}
}
