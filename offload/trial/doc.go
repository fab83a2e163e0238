// Package trial runs every variant of a kernel on the same input and compares
// the results: what `quern kernel test` and `quern kernel bench` do, and what an
// agent does before it uses a variant on a device for the first time.
//
//	Bundle ──▶ Bench.Run(variant, input) ──▶ result ──▶ Same(reference, result)
//
// The reference is the output that the bundle itself has, else what the wasm
// variant gives.
package trial
