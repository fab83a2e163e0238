package main

import (
	"errors"
	"math/rand/v2"
	"net"
)

// Ports are chosen below the range from which the kernel takes those of
// outgoing connections, so that a port is still free at the next start.
const (
	firstPort = 20000
	lastPort  = 32000
)

// freePorts finds n different UDP ports of the loopback interface that nobody
// uses now.
func freePorts(n int) ([]int, error) {
	var held []*net.UDPConn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	var ports []int
	for range 50 * (n + 1) {
		if len(ports) == n {
			return ports, nil
		}
		port := firstPort + rand.IntN(lastPort-firstPort)
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			continue
		}
		held = append(held, c)
		ports = append(ports, port)
	}
	return nil, errors.New("no free UDP ports between 20000 and 32000 on 127.0.0.1")
}
