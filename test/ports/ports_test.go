package ports

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func on(host string, port uint16) string {
	return netip.AddrPortFrom(netip.MustParseAddr(host), port).String()
}

func TestProgramListensOnAHeldPortAgainAndAgain(t *testing.T) {
	port := Hold(t)
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "0.0.0.0", "127.0.0.1"} {
		_, err := net.Dial("tcp", on("127.0.0.1", port))
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "nobody listens yet")
		listener, err := net.Listen("tcp", on(host, port))
		require.NoError(t, err, host)
		second, err := net.Listen("tcp", on(host, port))
		require.ErrorIs(t, err, syscall.EADDRINUSE, "a port that is held can still be taken: %v", second)
		require.NoError(t, listener.Close())
	}
}

// The kernel gives a held port to nobody: it is asked for more ports than it can have left.
func TestKernelGivesAHeldPortToNobody(t *testing.T) {
	held := map[uint16]bool{}
	for range 100 {
		port := Hold(t)
		require.False(t, held[port], "twice the same")
		held[port] = true
	}
	var listeners []net.Listener
	defer func() {
		for _, listener := range listeners {
			_ = listener.Close()
		}
	}()
	for range 3000 { // open files may be fewer
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.EADDRINUSE) {
			break
		}
		require.NoError(t, err)
		listeners = append(listeners, listener)
		address, err := netip.ParseAddrPort(listener.Addr().String())
		require.NoError(t, err)
		assert.False(t, held[address.Port()], "port %d was held", address.Port())
	}
}
