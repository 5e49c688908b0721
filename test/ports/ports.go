// Package ports gives tests TCP ports for the programs that they start. Only tests link it.
//
// A port that a test finds free by listening and closing is free until the kernel gives it to somebody else: to an
// outgoing connection, or to another test that asks in the same way. Here the kernel chooses the port, and a socket stays
// bound to it until the test ends. SO_REUSEADDR lets another socket bind and listen there all the same, if both have it
// set and the first one does not listen (socket(7)); Go's net.Listen sets it. The kernel itself passes over a port that
// is bound, both for connect(2) and for a bind(2) to port 0. While no program listens, a connection is refused.
package ports

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Hold returns a port on which the programs of this test, and nobody else, can listen until the test ends.
func Hold(t testing.TB) uint16 {
	t.Helper()
	fd, port, err := hold()
	if err != nil {
		t.Fatalf("cannot reserve a port: %s", err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return port
}

// hold binds a socket to a port on all addresses: a program may listen on any of them.
func hold() (fd int, port uint16, err error) {
	fd, err = bound(unix.AF_INET6, &unix.SockaddrInet6{})
	if err != nil { // no IPv6 here
		fd, err = bound(unix.AF_INET, &unix.SockaddrInet4{})
	}
	if err != nil {
		return -1, 0, err
	}
	address, err := unix.Getsockname(fd)
	switch address := address.(type) {
	case *unix.SockaddrInet6:
		return fd, uint16(address.Port), nil
	case *unix.SockaddrInet4:
		return fd, uint16(address.Port), nil
	}
	_ = unix.Close(fd)
	return -1, 0, fmt.Errorf("cannot read the port: %w", err)
}

// bound makes a socket that is bound and does not listen. No child inherits it: it would hold the port for longer.
func bound(family int, address unix.Sockaddr) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot make a socket: %w", err)
	}
	if family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, address)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("cannot bind a socket: %w", err)
	}
	return fd, nil
}
