package wire_test

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"quernfs/internal/wire"
	"quernfs/internal/wire/wiretest"
)

// TestShallowLosesNothing: a copy of every message has all of its fields, each with
// something in it, and changing one leaves the original alone.
func TestShallowLosesNothing(t *testing.T) {
	messages := wire.File_quern_proto.Messages()
	for i := range messages.Len() {
		d := messages.Get(i)
		mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
		if err != nil {
			t.Fatal(err)
		}
		choices := 1
		for o := range d.Oneofs().Len() {
			choices = max(choices, d.Oneofs().Get(o).Fields().Len())
		}
		for choice := range choices {
			m := wiretest.Fill(mt, choice, 3)
			whole := proto.Clone(m.Interface())
			got := wire.Shallow(m.Interface())
			if !proto.Equal(got, whole) {
				t.Errorf("%s: %v, wanted %v", d.Name(), got, whole)
			}
			got.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
				got.ProtoReflect().Clear(f)
				return true
			})
			if !proto.Equal(m.Interface(), whole) {
				t.Errorf("%s: the original changed with its copy", d.Name())
			}
		}
	}
}

func BenchmarkShallow(b *testing.B) {
	cmd := &wire.Command{Session: 1, Seq: 2, AckBelow: 1, Cred: &wire.Cred{}, Op: &wire.Command_Unlink{Unlink: &wire.Unlink{Parent: 1, Name: "f"}}}
	for b.Loop() {
		wire.Shallow(cmd)
	}
}
