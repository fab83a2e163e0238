package fs

import (
	"testing"

	"quernfs/internal/wire"
)

func TestDirCache(t *testing.T) {
	var d dirCache
	expect := func(step, name string, ino uint64, certain bool) {
		t.Helper()
		c, ok := d.find(name)
		if ok != certain || c.ino != ino {
			t.Errorf("%s: %q is %d, %v; want %d, %v", step, name, c.ino, ok, ino, certain)
		}
	}
	expect("empty cache", "a", 0, false)
	d.learn("a", child{5, typeReg}, 10)
	d.learn("b", child{}, 10)
	expect("learned", "a", 5, true)
	expect("learned absent", "b", 0, true)
	expect("not asked", "c", 0, false)
	if d.list() != nil {
		t.Error("a listing out of two names")
	}

	d.set("a", child{}, 20)
	d.learn("a", child{5, typeReg}, 15)
	expect("an answer older than our change", "a", 0, true)

	d.created()
	expect("new directory", "x", 0, true)
	d.set("x", child{7, typeDir}, 30)
	d.set("y", child{8, typeReg}, 31)
	expect("made", "x", 7, true)
	if l := d.list(); len(l) != 2 || l[0].Cookie > l[1].Cookie {
		t.Errorf("listing %v", l)
	}
	d.forget([]string{"x", "z"})
	expect("changed elsewhere", "x", 0, false)
	expect("maybe made elsewhere", "z", 0, false)
	expect("untouched", "y", 8, true)
	expect("still complete otherwise", "w", 0, true)
	if d.list() != nil {
		t.Error("a listing with unknown names")
	}
	d.learn("x", child{7, typeDir}, 32)
	d.learn("z", child{}, 33)
	if l := d.list(); len(l) != 2 {
		t.Errorf("listing %v", l)
	}
	d.set("y", child{}, 34)
	if l := d.list(); len(l) != 1 || l[0].Name != "x" {
		t.Errorf("listing %v", l)
	}
	d.clear()
	expect("cleared", "x", 0, false)
	d.fill([]*wire.DirEntry{{Name: "p", Ino: 9, Type: typeReg, Cookie: cookieOf("p")}}, 33)
	expect("a listing older than our change", "p", 0, false)
	d.fill([]*wire.DirEntry{{Name: "p", Ino: 9, Type: typeReg, Cookie: cookieOf("p")}}, 40)
	expect("listed", "p", 9, true)
	expect("not listed", "q", 0, true)
}

func TestDirCacheForgetsMuch(t *testing.T) {
	var d dirCache
	d.created()
	var names []string
	for i := range maxUnknown + 1 {
		names = append(names, string(rune('a'+i%26))+string(rune('0'+i/26)))
	}
	d.forget(names)
	if _, ok := d.find("anything"); ok {
		t.Error("still complete")
	}
}

// What this session is changing is not believed until it is known whether it has
// happened, and of two changes the later counts, whichever is answered first.
func TestDirCacheWhileChanging(t *testing.T) {
	d := &dirCache{}
	d.fill([]*wire.DirEntry{{Name: "a", Ino: 5}, {Name: "b", Ino: 6}}, 1)
	d.begin("a")
	if _, ok := d.find("a"); ok {
		t.Error("a name that is being changed is believed")
	}
	if c, ok := d.find("b"); !ok || c.ino != 6 {
		t.Error("another name is not")
	}
	if d.list() != nil {
		t.Error("a listing with it is")
	}
	d.begin("a")
	d.set("a", child{ino: 7}, 9)
	d.end("a")
	d.learn("a", child{ino: 5}, 3)
	d.set("a", child{}, 8)
	d.clear()
	d.set("a", child{}, 8)
	d.set("a", child{ino: 7}, 9)
	d.end("a")
	if c, ok := d.find("a"); !ok || c.ino != 7 {
		t.Errorf("%v %t: the older change counts", c, ok)
	}
	if len(d.changing) != 0 {
		t.Error("something is left under way")
	}
}
