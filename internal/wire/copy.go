package wire

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Shallow copies a message, so that its own fields can be changed; what they hold
// (messages, lists, bytes) is shared. It is the one way to change a field of a
// message that others may read: a copy made field by field loses those that are
// added later. Unknown fields are not copied. A nil message gives an empty one.
func Shallow[M proto.Message](m M) M {
	in := m.ProtoReflect()
	out := in.New()
	in.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		out.Set(f, v)
		return true
	})
	return out.Interface().(M)
}
