package wire

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestNamesAreBytes: a string of a message carries any bytes, since the names of
// files do.
func TestNamesAreBytes(t *testing.T) {
	const name = "caf\xe9 \x83\x65\x83\x58\x83\x67 \xff\xfe"
	data, err := proto.Marshal(&Unlink{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	var back Unlink
	if err := proto.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if back.GetName() != name {
		t.Errorf("got %q, want %q", back.GetName(), name)
	}
	messages := File_quern_proto.Messages()
	for i := range messages.Len() {
		bytesOnly(t, messages.Get(i))
	}
}

func bytesOnly(t *testing.T, m protoreflect.MessageDescriptor) {
	fields := m.Fields()
	for i := range fields.Len() {
		if f, ok := fields.Get(i).(interface{ EnforceUTF8() bool }); ok && fields.Get(i).Kind() == protoreflect.StringKind && f.EnforceUTF8() {
			t.Errorf("%s refuses bytes that are not UTF-8", fields.Get(i).FullName())
		}
	}
	for i := range m.Messages().Len() {
		bytesOnly(t, m.Messages().Get(i))
	}
}
