// Package transport carries calls between the processes of a cluster: QUIC
// between hosts, a Unix socket on one host, a function call in one process,
// all behind the one interface of transport.go.
package transport
