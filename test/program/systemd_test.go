package program

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// serviceManager is the end of a socket to which a run says what it does. A real systemd is in test/dockertest.
type serviceManager struct {
	path string
	mu   sync.Mutex
	text string
}

func newServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	m := &serviceManager{path: filepath.Join(t.TempDir(), "notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: m.path})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	go func() {
		for buffer := make([]byte, 4096); ; {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.text += string(buffer[:n])
			m.mu.Unlock()
		}
	}()
	return m
}

// told is all that has come so far.
func (m *serviceManager) told() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.text
}

func (m *serviceManager) await(c *chain, text string) {
	c.t.Helper()
	c.awaitOr("the message "+text, func() bool { return strings.Contains(m.told(), text) }, m.told)
}

func TestServiceManagerIsToldAndNodesAreNot(t *testing.T) {
	t.Parallel()
	m := newServiceManager(t)
	c := newChain(t, version{})
	c.env = []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=100000"}
	c.da.set(5, 5)
	c.start()
	m.await(c, "STATUS=v0 (version 0): running, height 5\n")
	m.await(c, "WATCHDOG=1\n")
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", c.nodeProcess()))
	require.NoError(t, err)
	assert.Contains(t, string(environment), chainVariable)
	assert.NotContains(t, string(environment), "NOTIFY_SOCKET")
	assert.NotContains(t, string(environment), "WATCHDOG_")
	send(syscall.SIGTERM)(c)
	c.awaitExit(0)
	c.program = nil
	m.await(c, "STOPPING=1\n")
	assert.Equal(t, 1, strings.Count(m.told(), "READY=1\n"), m.told())
}

func TestFailureIsTheLastLineToTheServiceManager(t *testing.T) {
	t.Parallel()
	m := newServiceManager(t)
	c := newChain(t, version{})
	c.env = []string{"NOTIFY_SOCKET=" + m.path}
	code, _, _ := c.command("run", "-c", c.manager+"-absent", "-f", c.checkpoint)
	assert.Equal(t, 78, code)
	m.await(c, "STATUS=exit code 78: cannot read the plan")
	assert.NotContains(t, m.told(), "READY")
}

func TestSocketThatDoesNotWorkStopsNoChain(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 5})
	c.env = []string{"NOTIFY_SOCKET=" + filepath.Join(t.TempDir(), "nobody")}
	c.da.set(9, 9)
	c.start()
	c.awaitEvent(on("systemd not notified", "error~nobody"))
	c.awaitExit(0)
	c.program = nil
}
