// Package rawtext carries strings of any bytes, as names of files are, through
// formats that are Unicode.
//
// In JSON a byte that is not part of UTF-8 is written as the escape of a lone
// surrogate, \udc80 to \udcff for 0x80 to 0xff. Python does so too (PEP 383):
// what json.loads makes of it is what os.fsencode takes.
//
// For a parser that refuses such bytes and such escapes, Hide puts a character of
// a private range in the place of each, and Show takes that back. What looks like
// such a character itself is taken apart into its bytes, so any string comes
// back.
package rawtext
