package sequencer

import (
	"log/slog"
	"syscall"
	"time"

	"rollup-entrypoint/internal/signalname"
)

// SignalSource hands out the signals that were sent to the entrypoint, each once and in order.
type SignalSource interface {
	// Signals may also give 0, with which a watchdog sees that this loop is alive. It means nothing.
	Signals() <-chan syscall.Signal
	// TryTake takes the oldest one without waiting.
	TryTake() (syscall.Signal, bool)
}

// stopRequested takes all signals that have arrived and reports whether one of them asked for a stop. It comes before
// every start.
func (s *sequence) stopRequested() bool {
	for {
		sig, ok := s.Signals.TryTake()
		if !ok {
			return s.stopping
		}
		s.note(sig)
	}
}

// note takes a signal while no node runs: a stop is remembered, anything else is dropped. If it were kept, it would hit
// the next node while that starts and has no handler yet: a SIGHUP would kill it.
func (s *sequence) note(sig syscall.Signal) {
	if IsStop(sig) {
		s.requestStop(sig)
		return
	}
	if sig != 0 {
		s.Log.Info("signal dropped while no node runs", slog.String("signal", signalname.Of(sig)))
	}
}

func (s *sequence) requestStop(sig syscall.Signal) {
	if !s.stopping {
		s.Log.Info("stop requested", slog.String("signal", signalname.Of(sig)))
		s.stopAt = time.Now()
	}
	s.stopping, s.state.Stopping = true, true
	s.publish()
}

// stopAgainAfter is how long after the first stop signal another one means more than the first. Nomad, Compose and systemd
// with Podman send two within seconds for one stop.
const stopAgainAfter = 10 * time.Second

// stopsAgain takes a stop signal and reports whether it asks for more than the first one did.
func (s *sequence) stopsAgain(sig syscall.Signal) bool {
	again := s.stopping && time.Since(s.stopAt) >= stopAgainAfter
	s.requestStop(sig)
	return again
}

// IsStop reports whether sig means: end, and start nothing more. TERM, INT and QUIT do; a node shuts down on them.
func IsStop(sig syscall.Signal) bool {
	return sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGQUIT
}
