package meta

import (
	"context"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLog lets raft log through slog. Raft reports each lost heartbeat as an
// error of its own; what an operator must see are the changes of role, so its
// levels are mapped one down.
type raftLog struct {
	log  *slog.Logger
	name string
}

var _ hclog.Logger = (*raftLog)(nil)

func level(l hclog.Level, msg string) slog.Level {
	switch {
	case msg == "failed to decode incoming command": // a peer closed its connection
		return slog.LevelDebug
	case l >= hclog.Error:
		return slog.LevelWarn
	case l >= hclog.Warn:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

func (l *raftLog) Log(at hclog.Level, msg string, args ...any) {
	l.log.Log(context.Background(), level(at, msg), msg, args...)
}
func (l *raftLog) Trace(string, ...any)          {}
func (l *raftLog) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLog) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLog) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLog) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }
func (l *raftLog) enabled(at hclog.Level) bool {
	return l.log.Enabled(context.Background(), level(at, ""))
}
func (l *raftLog) IsTrace() bool                    { return false }
func (l *raftLog) IsDebug() bool                    { return l.enabled(hclog.Debug) }
func (l *raftLog) IsInfo() bool                     { return l.enabled(hclog.Info) }
func (l *raftLog) IsWarn() bool                     { return l.enabled(hclog.Warn) }
func (l *raftLog) IsError() bool                    { return l.enabled(hclog.Error) }
func (l *raftLog) ImpliedArgs() []any               { return nil }
func (l *raftLog) With(args ...any) hclog.Logger    { return &raftLog{l.log.With(args...), l.name} }
func (l *raftLog) Name() string                     { return l.name }
func (l *raftLog) Named(name string) hclog.Logger   { return &raftLog{l.log, name} }
func (l *raftLog) ResetNamed(n string) hclog.Logger { return l.Named(n) }
func (l *raftLog) SetLevel(hclog.Level)             {}
func (l *raftLog) GetLevel() hclog.Level            { return hclog.Debug }
func (l *raftLog) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.log.Handler(), slog.LevelInfo)
}
func (l *raftLog) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(nil).Writer()
}
