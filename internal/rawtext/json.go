package rawtext

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"unicode/utf8"
)

// Marshal is json.Marshal, but for strings that are not UTF-8.
func Marshal(v any) ([]byte, error) {
	text, err := json.Marshal(hideIn(v))
	return escape(text), err
}

// MarshalIndent is json.MarshalIndent, but for strings that are not UTF-8.
func MarshalIndent(v any, prefix, indent string) ([]byte, error) {
	text, err := json.MarshalIndent(hideIn(v), prefix, indent)
	return escape(text), err
}

// Unmarshal is json.Unmarshal of what Marshal, or Python, has written.
func Unmarshal(text []byte, v any) error {
	if err := json.Unmarshal(Unescape(text), v); err != nil {
		return err
	}
	rewrite(reflect.ValueOf(v).Elem(), Show)
	return nil
}

// hideIn returns v with all strings in it hidden; v itself is left as it is.
func hideIn(v any) any {
	if v == nil {
		return nil
	}
	c := reflect.New(reflect.TypeOf(v)).Elem()
	c.Set(reflect.ValueOf(v))
	rewrite(c, Hide)
	return c.Interface()
}

// escape writes what is hidden in a JSON text as lone surrogates.
func escape(text []byte) []byte {
	if bytes.IndexByte(text, 0xf4) < 0 {
		return text
	}
	var out []byte
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if hidden(r) {
			out = fmt.Appendf(out, `\udc%02x`, r-base)
		} else {
			out = append(out, text[i:i+n]...)
		}
		i += n
	}
	return out
}

// Unescape hides the lone surrogates \udc80 to \udcff that are escaped in a text
// where a backslash begins an escape, such as JSON.
func Unescape(text []byte) []byte {
	return unescape(text, func(out []byte, b byte, _ []byte) []byte { return utf8.AppendRune(out, base+rune(b)) })
}

// UnescapeTo8 is Unescape for YAML, whose parser changes what is not in double
// quotes least if an escape stays one: \U0010f7XX, which it reads as what Hide
// makes. XX is as it was.
func UnescapeTo8(text []byte) []byte {
	return unescape(text, func(out []byte, _ byte, hex []byte) []byte { return fmt.Appendf(out, `\U%06x%s`, base>>8, hex) })
}

func unescape(text []byte, to func(out []byte, b byte, hex []byte) []byte) []byte {
	if !bytes.Contains(text, []byte(`\udc`)) && !bytes.Contains(text, []byte(`\uDC`)) {
		return text
	}
	var out []byte
	high := false // the escape before was the first half of a pair
	for i := 0; i < len(text); {
		if text[i] != '\\' || i+1 >= len(text) {
			out = append(out, text[i])
			i, high = i+1, false
			continue
		}
		n := 2
		was := high
		high = false
		if text[i+1] == 'u' && i+6 <= len(text) {
			if c, err := strconv.ParseUint(string(text[i+2:i+6]), 16, 16); err == nil {
				n = 6
				high = 0xd800 <= c && c < 0xdc00
				if 0xdc80 <= c && c <= 0xdcff && !was {
					out = to(out, byte(c), text[i+4:i+6])
					i += n
					continue
				}
			}
		}
		out = append(out, text[i:i+n]...)
		i += n
	}
	return out
}

var (
	ownJSON = reflect.TypeFor[json.Marshaler]()
	ownText = reflect.TypeFor[encoding.TextMarshaler]()
)

// rewrite changes all strings in v, which can be set. What v shares with others is
// copied first.
func rewrite(v reflect.Value, f func(string) string) {
	t := v.Type()
	if p := reflect.PointerTo(t); t.Kind() != reflect.Pointer && (p.Implements(ownJSON) || p.Implements(ownText)) {
		return
	}
	switch v.Kind() {
	case reflect.String:
		if s := f(v.String()); s != v.String() {
			v.SetString(s)
		}
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return
		}
		c := reflect.New(v.Elem().Type())
		c.Elem().Set(v.Elem())
		rewrite(c.Elem(), f)
		if v.Kind() == reflect.Interface {
			c = c.Elem()
		}
		v.Set(c)
	case reflect.Slice:
		if v.IsNil() || t.Elem().Kind() == reflect.Uint8 {
			return
		}
		c := reflect.MakeSlice(t, v.Len(), v.Len())
		reflect.Copy(c, v)
		for i := range c.Len() {
			rewrite(c.Index(i), f)
		}
		v.Set(c)
	case reflect.Array:
		for i := range v.Len() {
			rewrite(v.Index(i), f)
		}
	case reflect.Map:
		if v.IsNil() {
			return
		}
		c := reflect.MakeMapWithSize(t, v.Len())
		for it := v.MapRange(); it.Next(); {
			key, value := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
			key.Set(it.Key())
			value.Set(it.Value())
			rewrite(key, f)
			rewrite(value, f)
			c.SetMapIndex(key, value)
		}
		v.Set(c)
	case reflect.Struct:
		for i := range v.NumField() {
			if field := t.Field(i); field.IsExported() || field.Anonymous && field.Type.Kind() == reflect.Struct {
				rewrite(v.Field(i), f)
			}
		}
	}
}
