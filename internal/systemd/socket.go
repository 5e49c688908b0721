package systemd

import (
	"net"
	"os"
	"strconv"
	"time"
)

// sendTimeout is how long a message may wait for room in the socket: systemd reads it at once, unless it hangs.
const sendTimeout = time.Second

// Socket is where the service manager takes messages. The zero Socket is none.
type Socket struct {
	// Path is the path of a socket or, after an @, the name of an abstract one (unix(7)).
	Path string
	// Watchdog is how long the manager waits for a sign of life; 0 means forever.
	Watchdog time.Duration
}

// Take reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, and removes them from the environment: a node that inherited
// them could say in our name that it is ready, or alive.
func Take() Socket {
	take := func(name string) string {
		value := os.Getenv(name)
		_ = os.Unsetenv(name) // it fails only for names that cannot be set
		return value
	}
	s := Socket{Path: take("NOTIFY_SOCKET")}
	usec, err := strconv.ParseUint(take("WATCHDOG_USEC"), 10, 53) // as nanoseconds it still fits
	if pid := take("WATCHDOG_PID"); err == nil && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		s.Watchdog = time.Duration(usec) * time.Microsecond
	}
	return s
}

// Send sends one message, which is a line for each assignment (sd_notify(3)). Without a socket it does nothing.
func (s Socket) Send(message string) error {
	if s.Path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: s.Path})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the message is gone by then
	if err := conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(message))
	return err
}
