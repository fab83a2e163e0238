package wire

import "google.golang.org/protobuf/proto"

// Method names a call. The numbers are part of the protocol: append-only.
type Method uint16

const (
	MethodDescribe Method = 1 // Empty → Endpoint: who answers here, and how else it can be reached

	// Served by meta.
	MethodMutate    Method = 10 // Command → Result
	MethodQuery     Method = 11 // Query → Answer
	MethodSession   Method = 12 // stream: FromClient / Push, opened by a Hello, answered by a Welcome
	MethodLock      Method = 13 // LockCall → LockReply; waits as long as the caller's context lives
	MethodBadShard  Method = 14 // BadShard → Empty
	MethodHeartbeat Method = 15 // Heartbeat → HeartbeatReply
	MethodPoll      Method = 16 // Poll → PollReply
	MethodJoin      Method = 17 // JoinMeta → JoinReply
	MethodRaft      Method = 18 // raw stream: hashicorp/raft's own traffic

	// Served by chunkd (and edge).
	MethodPutShard  Method = 30 // PutShard + payload → PutShardReply
	MethodGetShard  Method = 31 // GetShard → GetShardReply + payload
	MethodOpenShard Method = 32 // OpenShard → OpenShardReply
	MethodSegmentFD Method = 33 // SegmentFD → SegmentFDReply + file
)

// Shape says which messages a method carries.
type Shape struct {
	Name string
	Req  func() proto.Message
	Resp func() proto.Message
}

// Shapes has the shape of every method but the raw ones.
var Shapes = map[Method]Shape{
	MethodDescribe:  {"describe", func() proto.Message { return new(Empty) }, func() proto.Message { return new(Endpoint) }},
	MethodMutate:    {"mutate", func() proto.Message { return new(Command) }, func() proto.Message { return new(Result) }},
	MethodQuery:     {"query", func() proto.Message { return new(Query) }, func() proto.Message { return new(Answer) }},
	MethodSession:   {"session", func() proto.Message { return new(FromClient) }, func() proto.Message { return new(Push) }},
	MethodLock:      {"lock", func() proto.Message { return new(LockCall) }, func() proto.Message { return new(LockReply) }},
	MethodBadShard:  {"bad-shard", func() proto.Message { return new(BadShard) }, func() proto.Message { return new(Empty) }},
	MethodHeartbeat: {"heartbeat", func() proto.Message { return new(Heartbeat) }, func() proto.Message { return new(HeartbeatReply) }},
	MethodPoll:      {"poll", func() proto.Message { return new(Poll) }, func() proto.Message { return new(PollReply) }},
	MethodJoin:      {"join", func() proto.Message { return new(JoinMeta) }, func() proto.Message { return new(JoinReply) }},
	MethodPutShard:  {"put-shard", func() proto.Message { return new(PutShard) }, func() proto.Message { return new(PutShardReply) }},
	MethodGetShard:  {"get-shard", func() proto.Message { return new(GetShard) }, func() proto.Message { return new(GetShardReply) }},
	MethodOpenShard: {"open-shard", func() proto.Message { return new(OpenShard) }, func() proto.Message { return new(OpenShardReply) }},
	MethodSegmentFD: {"segment-fd", func() proto.Message { return new(SegmentFD) }, func() proto.Message { return new(SegmentFDReply) }},
}

func (m Method) String() string {
	if s, ok := Shapes[m]; ok {
		return s.Name
	}
	if m == MethodRaft {
		return "raft"
	}
	return "unknown method"
}
