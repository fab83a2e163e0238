// Package wiretest makes messages for tests.
package wiretest

import (
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Fill is a message with something in each of its fields, but for all of a oneof
// but one, which choice picks.
func Fill(t protoreflect.MessageType, choice, depth int) protoreflect.Message {
	m := t.New()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if o := f.ContainingOneof(); o != nil && o.Fields().Get(choice%o.Fields().Len()) != f {
			continue
		}
		one := func(fresh func() protoreflect.Value) protoreflect.Value {
			switch f.Kind() {
			case protoreflect.MessageKind:
				if depth == 0 {
					return fresh()
				}
				return protoreflect.ValueOfMessage(Fill(fresh().Message().Type(), choice, depth-1))
			case protoreflect.StringKind:
				return protoreflect.ValueOfString("caf\xe9")
			case protoreflect.BytesKind:
				return protoreflect.ValueOfBytes([]byte{1})
			case protoreflect.BoolKind:
				return protoreflect.ValueOfBool(true)
			case protoreflect.EnumKind:
				return protoreflect.ValueOfEnum(1)
			case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
				return protoreflect.ValueOfUint32(7)
			case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
				return protoreflect.ValueOfUint64(7)
			case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
				return protoreflect.ValueOfInt32(-7)
			case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
				return protoreflect.ValueOfInt64(-7)
			case protoreflect.FloatKind:
				return protoreflect.ValueOfFloat32(0.7)
			case protoreflect.DoubleKind:
				return protoreflect.ValueOfFloat64(0.7)
			}
			panic("a field of a kind that no message had: " + string(f.FullName()) + " " + f.Kind().String())
		}
		if f.IsList() {
			l := m.Mutable(f).List()
			l.Append(one(l.NewElement))
			l.Append(one(l.NewElement))
		} else {
			m.Set(f, one(func() protoreflect.Value { return m.NewField(f) }))
		}
	}
	return m
}
