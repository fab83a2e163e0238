// Package table filters and aggregates files of comma-separated values: what
// the kernel csv does. It is a function of what it reads; nothing here knows of
// jobs.
//
// # What it reads
//
// RFC 4180, with lines that end in \n or \r\n: fields may be quoted, and then
// hold delimiters, line breaks (of which \r\n becomes \n) and doubled quotes. It
// is strict: a quote within a field that is not quoted, a quote that is not
// closed, and a record with another number of fields than the header are errors.
// Empty lines are passed over, as is a byte order mark.
//
// That is what makes it safe to cut files at lines. Where a cut lies within a
// quoted field, the part that ends there has a quote that is not closed, unless
// it began within one itself; so of the first such cut in a file the part before
// it fails, and with it the job. No cut goes unseen, and none gives a wrong
// result.
//
// # Expressions
//
//	or       = and { ("or" | "||") and } .
//	and      = not { ("and" | "&&") not } .
//	not      = ("not" | "!") not | compare .
//	compare  = sum [ ("=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=") sum
//	                | ["not"] "in" "(" sum { "," sum } ")"
//	                | ("~" | "!~") text ] .
//	sum      = product { ("+" | "-") product } .
//	product  = unary { ("*" | "/") unary } .
//	unary    = "-" unary | number | text | column | function "(" … ")" | "(" or ")" .
//
// A text is in ' or ", a quote in it doubled; a column is a name, in ` where it is
// not made of letters, digits and _. A cell that is compared with a number, or
// computed with, is read as one; where it is none every comparison with it is
// false, != too. Two cells are compared as numbers if both are, else as texts, by
// bytes. Numbers are float64 here.
//
// # Aggregates
//
// Sums are exact: numbers are decimal, and added up without rounding, so that a
// result does not depend on how files were cut or in which order parts came. The
// mean is the float64 that is nearest to the exact one. What a map step writes of
// a group is its cells and the state of each aggregate, as a file of this kind
// again; merging adds up states.
package table
