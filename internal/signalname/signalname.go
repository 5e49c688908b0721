// Package signalname names signals as logs, metrics and errors show them.
package signalname

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Of returns the name as signal(7) has it, such as SIGTERM, or "signal 37" for a real-time signal.
func Of(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return "signal " + strconv.Itoa(int(sig))
}
