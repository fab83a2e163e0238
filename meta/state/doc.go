// Package state is the metadata of QuernFS as a deterministic state machine:
// commands in, results out, Pebble below. It has no clock, no randomness and no
// network: replicas that apply the same log hold the same bytes.
package state
