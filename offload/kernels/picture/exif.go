package picture

import (
	"bytes"
	"encoding/binary"
)

// Orientation is how a picture has to be turned, as EXIF counts: 1 (not at all)
// to 8; 1 where the file does not say, or says it wrongly.
func Orientation(data []byte) int {
	var o int
	switch FormatOf(data) {
	case JPEG:
		o = tiffOrientation(jpegExif(data))
	case PNG:
		o = tiffOrientation(pngExif(data))
	}
	if o < 1 || o > 8 {
		return 1
	}
	return o
}

// jpegExif finds the EXIF data of a JPEG file: in a segment APP1 before the
// first scan.
func jpegExif(data []byte) []byte {
	for data = data[2:]; len(data) >= 4 && data[0] == 0xff; {
		marker, n := data[1], int(binary.BigEndian.Uint16(data[2:]))
		switch {
		case marker == 0xff: // a fill byte
			data = data[1:]
			continue
		case marker == 0xda, n < 2, len(data) < 2+n:
			return nil
		}
		body := data[4 : 2+n]
		if marker == 0xe1 && bytes.HasPrefix(body, []byte("Exif\x00\x00")) {
			return body[6:]
		}
		data = data[2+n:]
	}
	return nil
}

// pngExif finds the EXIF data of a PNG file: in a chunk eXIf before the pixels.
func pngExif(data []byte) []byte {
	for data = data[8:]; len(data) >= 8; {
		n, kind := uint64(binary.BigEndian.Uint32(data)), string(data[4:8])
		if n+12 > uint64(len(data)) || kind == "IDAT" {
			return nil
		}
		if kind == "eXIf" {
			return data[8 : 8+n]
		}
		data = data[12+n:]
	}
	return nil
}

// tiffOrientation reads the tag of the orientation, 0x112, a SHORT, in the first
// directory; 0: there is none.
func tiffOrientation(data []byte) int {
	if len(data) < 8 {
		return 0
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch string(data[:4]) {
	case "II*\x00":
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 0
	}
	at := uint64(order.Uint32(data[4:]))
	if at+2 > uint64(len(data)) {
		return 0
	}
	entries := data[at+2:]
	for range order.Uint16(data[at:]) {
		if len(entries) < 12 {
			return 0
		}
		if order.Uint16(entries) == 0x112 {
			if order.Uint16(entries[2:]) != 3 || order.Uint32(entries[4:]) != 1 {
				return 0
			}
			return int(order.Uint16(entries[8:]))
		}
		entries = entries[12:]
	}
	return 0
}
