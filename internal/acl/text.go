package acl

import (
	"fmt"
	"strconv"
	"strings"
)

const letters = "uUgGmo"

var tags = [len(letters)]uint16{TagUserObj, TagUser, TagGroupObj, TagGroup, TagMask, TagOther}

// Parse reads what String writes: "u:rwx,U1000:r-x,g:r--,G5:rw-,m:rwx,o:---",
// where capitals are those of a user and a group by number. Dashes may be left out.
// The list need not be valid.
func Parse(s string) (List, error) {
	var out List
	for e := range strings.SplitSeq(s, ",") {
		who, perm, ok := strings.Cut(e, ":")
		i := strings.IndexByte(letters, (who + " ")[0])
		if !ok || i < 0 {
			return nil, fmt.Errorf("an ACL has entries such as u:rwx, U1000:r-x or o:---, not %q", e)
		}
		entry := Entry{Tag: tags[i], ID: noID}
		switch entry.Tag {
		case TagUser, TagGroup:
			id, err := strconv.ParseUint(who[1:], 10, 32)
			if err != nil {
				return nil, fmt.Errorf("%q of an ACL needs the number of a user or group", e)
			}
			entry.ID = uint32(id)
		default:
			if len(who) > 1 {
				return nil, fmt.Errorf("%q of an ACL belongs to nobody by number", e)
			}
		}
		for _, c := range perm {
			switch c {
			case 'r':
				entry.Perm |= Read
			case 'w':
				entry.Perm |= Write
			case 'x':
				entry.Perm |= Exec
			case '-':
			default:
				return nil, fmt.Errorf("%q of an ACL has another permission than r, w and x", e)
			}
		}
		out = append(out, entry)
	}
	return out, nil
}

// String lists the entries in order.
func (a List) String() string {
	var b strings.Builder
	for i, e := range a {
		if i > 0 {
			b.WriteByte(',')
		}
		for k, tag := range tags {
			if tag == e.Tag {
				b.WriteByte(letters[k])
			}
		}
		if e.Tag == TagUser || e.Tag == TagGroup {
			b.WriteString(strconv.FormatUint(uint64(e.ID), 10))
		}
		b.WriteByte(':')
		for k, bit := range []uint16{Read, Write, Exec} {
			if e.Perm&bit == 0 {
				b.WriteByte('-')
			} else {
				b.WriteByte("rwx"[k])
			}
		}
	}
	return b.String()
}
