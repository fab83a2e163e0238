package picture

import "testing"

// TestNames: no two pictures of an archive have one name, whichever comes first.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		format Format
		files  []string
		want   []string
	}{
		{PNG, []string{"/in/a.jpg", "/in/b.JPEG"}, []string{"in/a.png", "in/b.png"}},
		{PNG, []string{"/a.jpg", "/a.png"}, []string{"a.png", "a-2.png"}},
		{PNG, []string{"/a.png", "/a.jpg"}, []string{"a.png", "a.jpg.png"}},
		{PNG, []string{"/a.JPG", "/a.jpeg", "/a.jpeg.png", "/a.png"}, []string{"a.png", "a.jpeg.png", "a.jpeg-2.png", "a-2.png"}},
		{JPEG, []string{"/a.jpeg", "/a.jpg", "/a.png", "/a"}, []string{"a.jpeg", "a.jpg", "a.png.jpg", "a-2.jpg"}},
		{PNG, []string{"/a.b/c", "/a.b/c.png"}, []string{"a.b/c.png", "a.b/c-2.png"}},
	} {
		names := Names{}
		for i, file := range c.files {
			if got := names.Of(file, c.format); got != c.want[i] {
				t.Errorf("%s of %v is %s, not %s", file, c.files, got, c.want[i])
			}
		}
	}
	// What tasks have left is put together.
	all := Names{}
	for i, want := range []string{"a.png", "a-2.png", "a-3.png"} {
		if got := all.Free("a.png"); got != want {
			t.Errorf("number %d is %s", i, got)
		}
	}
}
