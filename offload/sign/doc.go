// Package sign says who vouches for a file of a kernel that runs as it is:
// a bitstream, or a model of one, which is native code. It is pure but for
// ReadKeys.
//
// A signature binds the file and the manifest beside it together, because the
// manifest says how large the buffers are that the file's code writes to:
//
//	Ed25519( "quern kernel 1\n" | SHA-256 of the file | SHA-256 of kernel.yaml )
//
// It lies beside the file as FILE.sig, a line of text for each who has signed:
//
//	ed25519 PUBLIC-KEY SIGNATURE
//
// and whom a host trusts is a file of lines
//
//	ed25519 PUBLIC-KEY NAME
//
// Keys and signatures are in base64. Empty lines, and lines that begin with #,
// say nothing. A private key is a PKCS #8 block in PEM, as other tools write it.
package sign
