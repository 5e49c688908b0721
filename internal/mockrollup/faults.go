package mockrollup

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	faultLeaderRestart = "leader-restart"
	faultLeaderExit    = "leader-exit-at-start"
	faultCrash         = "crash"
	faultFreeze        = "freeze"

	orphanCommand = "orphan"
	orphanLife    = 50 * time.Millisecond
)

// faultAt ends the node at the soft height h, if a fault is set there. At the stop height, that is before the durable
// state has reached it: an exit 0 that looks complete but is not.
func (n *node) faultAt(h uint64) (*ending, error) {
	mock := &n.cfg.Mock
	switch {
	case h == mock.LeaderRestartAt && !n.store.fired(faultLeaderRestart, h):
		n.look(n.ticked)
		n.log.info("Exiting to restart as leader", "height", h)
		return &ending{reason: restartAsLeader}, n.store.setFired(faultLeaderRestart, h)
	case h == mock.ExitEarlyAt:
		n.look(n.ticked)
		return &ending{reason: fmt.Sprintf("exit_early_at %d", h)}, nil
	case h == mock.FreezeAt && !n.store.fired(faultFreeze, h):
		if err := n.store.setFired(faultFreeze, h); err != nil {
			return nil, err
		}
		n.look(n.ticked)
		return nil, os.NewSyscallError("kill", unix.Kill(os.Getpid(), unix.SIGSTOP))
	case h == mock.CrashAt && mock.CrashOn == "soft" && n.mayCrash():
		return n.crashEnding(h)
	}
	return nil, nil
}

// wonAtStart ends the first starts on a state before the height checks, so nothing is known of the heights.
func (n *node) wonAtStart() (*ending, error) {
	for start := uint64(1); start <= uint64(n.cfg.Mock.LeaderExitAtStart); start++ {
		if n.store.fired(faultLeaderExit, start) {
			continue
		}
		n.log.info("Exiting to restart as leader", "height", n.state.Height)
		return &ending{reason: restartAsLeader}, n.store.setFired(faultLeaderExit, start)
	}
	return nil, nil
}

func (n *node) mayCrash() bool {
	return !n.cfg.Mock.CrashOnce || !n.store.fired(faultCrash, n.cfg.Mock.CrashAt)
}

// durableCrash returns the height at which the commit up to target must pause for a crash, or 0.
func (n *node) durableCrash(target uint64) uint64 {
	at := n.cfg.Mock.CrashAt
	if n.cfg.Mock.CrashOn != "durable" || at <= n.state.Height || at > target || !n.mayCrash() {
		return 0
	}
	return at
}

func (n *node) durableCrashAt(h uint64) bool {
	return n.cfg.Mock.CrashOn == "durable" && h == n.cfg.Mock.CrashAt && n.mayCrash()
}

func (n *node) crashEnding(h uint64) (*ending, error) {
	end := &ending{
		code: n.cfg.Mock.ExitCode, abrupt: true, signal: unix.SignalNum(n.cfg.Mock.CrashSignal),
		reason: fmt.Sprintf("mock fault: crash_at %d (%s height)", h, n.cfg.Mock.CrashOn),
	}
	if !n.cfg.Mock.CrashOnce {
		return end, nil
	}
	return end, n.store.setFired(faultCrash, n.cfg.Mock.CrashAt)
}

func (n *node) flood(h uint64) {
	if n.cfg.Mock.StderrFlood == 0 {
		return
	}
	line := fmt.Sprintf("%8d %s\n", h, strings.Repeat("flood ", 12))
	text := strings.Repeat(line, n.cfg.Mock.StderrFlood/len(line)+1)
	fmt.Fprint(n.stdio.Err, text[:n.cfg.Mock.StderrFlood-1]+"\n")
}

// spawnOrphans leaves daemons behind, as a wrapper script or a badly written tool does: each loses its parent before it
// ends, and must be reaped by process 1.
func (n *node) spawnOrphans() error {
	for range n.cfg.Mock.OrphansPerBlock {
		child, err := startOrphan("middle")
		if err != nil {
			return fmt.Errorf("cannot start an orphan: %w", err)
		}
		go func() { _ = child.Wait() }()
	}
	return nil
}

func startOrphan(generation string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	child := exec.Command(self, orphanCommand, generation)
	return child, child.Start()
}

// orphanMain is the process in between, which starts the daemon and ends immediately, or the daemon.
func orphanMain(args []string, _ Stdio) int {
	if len(args) == 1 && args[0] == "middle" {
		if _, err := startOrphan("last"); err != nil {
			return exitMigration
		}
		return exitOK
	}
	time.Sleep(orphanLife)
	return exitOK
}

// ioUringSetup opens a ring of one entry and returns its file descriptor.
func ioUringSetup() (int, error) {
	// struct io_uring_params is 120 bytes, all of them zero in a plain request.
	var params [120 / 8]uint64
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return -1, errno
	}
	return int(ring), nil
}
