package wire

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestSpoken: each call, command and query has its row, and no row is of anything else.
func TestSpoken(t *testing.T) {
	known := map[string]bool{"raft": true, "propose": true}
	for _, s := range Shapes {
		known[s.Name] = true
	}
	for _, m := range []protoreflect.ProtoMessage{new(Command), new(Query)} {
		fields := m.ProtoReflect().Descriptor().Oneofs().ByName("op").Fields()
		for i := range fields.Len() {
			known[strings.ReplaceAll(string(fields.Get(i).Name()), "_", " ")] = true
		}
	}
	for name := range known {
		if _, ok := spoken[name]; !ok {
			t.Errorf("%q has no row", name)
		}
	}
	for name := range spoken {
		if !known[name] {
			t.Errorf("%q is no call, command or query", name)
		}
	}
}

// TestSentences: what users read about a failure, also when it has come over a wire,
// names no call and no message.
func TestSentences(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&Error{Code: Timeout, Op: "mutate"}, "change metadata: timed out"},
		{Errorf(Timeout, "put-shard", "chunkd-3", "no answer in time"), "store a shard on chunkd-3: no answer in time"},
		{&Error{Code: Denied, Op: "set attr"}, "change attributes: permission denied"},
		{&Error{Code: NotFound, Op: "lookup", Object: "x"}, "look up x: not found"},
		{&Error{Code: Exists, Op: "rename", Object: "x"}, "rename x: exists"},
		{&Error{Code: Invalid, Object: "x"}, "x: invalid argument"},
		{Errorf(Invalid, "", "", "a sentence"), "a sentence"},
		{fmt.Errorf("the job could not be stored: %w", Errorf(Unavailable, "query", "", "no metadata server answered in time; the last one said: %w",
			&Error{Code: NotLeader, Op: "mutate", Object: "meta-1"})),
			"the job could not be stored: ask for metadata: no metadata server answered in time; the last one said: change metadata at meta-1: not the leader"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("%s\nwant: %s", got, c.want)
		}
		var e *Error
		if errors.As(c.err, &e) && e == c.err {
			if got := ToFailure(c.err).Err().Error(); got != c.want {
				t.Errorf("over a wire: %s\nwant: %s", got, c.want)
			}
		}
	}
}
