package reaper

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/signalname"
)

// orphansWanted is how many orphans the storm makes; `make hostile` asks for 100,000.
var orphansWanted = flag.Int("orphans", 10000, "how many orphans TestHostileStormOfOrphansLosesTheInitNothing makes")

const (
	forkers = 4  // processes that make orphans, beside each other
	wave    = 50 // orphans that one of them makes at a time, so that the limits on processes are kept
)

// The whole of an init's work at once: orphans by the thousands, exits of children, and signals to forward.
func TestHostileStormOfOrphansLosesTheInitNothing(t *testing.T) {
	if !runAsInit(t, "-orphans="+strconv.Itoa(*orphansWanted)) {
		return
	}
	r := newReaper(t, Options{Inbox: newInbox(t)})
	lines, exit := execWitness(t, r, ExecOptions{})
	begin := time.Now()
	var storm sync.WaitGroup
	for range forkers {
		storm.Go(func() {
			c, err := r.Start(forker(*orphansWanted / forkers))
			if err != nil {
				t.Error(err)
			} else if <-c.Done(); c.Exit() != (Exit{Code: 42}) {
				t.Errorf("a forker ended with %v", c.Exit())
			}
		})
	}
	over := make(chan struct{})
	go func() { storm.Wait(); close(over) }()
	children := childrenUntil(t, r, over)
	signals := signalsUntil(t, lines, over)
	exits := <-children
	endWitness(t, r, exit)
	eventually(t, "no children left", func() bool {
		childless, err := r.reapNow()
		require.NoError(t, err)
		return childless
	})
	require.Equal(t, uint64(*orphansWanted/forkers*forkers), r.Orphans(), "each orphan is counted, and once")
	table, err := readProcesses("/proc")
	require.NoError(t, err)
	require.Len(t, table, 1, "nothing but process 1 may be left, and no zombie")
	fmt.Printf("%d orphans, %d exits, %d signals in %.1f s\n", r.Orphans(), exits, signals, time.Since(begin).Seconds())
}

// childrenUntil starts children, each with its own exit code, until over is closed. It gives how many there were.
func childrenUntil(t *testing.T, r *Reaper, over <-chan struct{}) <-chan int {
	count := make(chan int, 1)
	go func() {
		n := 0
		defer func() { count <- n }()
		for ; ; n++ {
			select {
			case <-over:
				return
			default:
			}
			c, err := r.Start(shell("exit $1", strconv.Itoa(n%256)))
			if err != nil {
				t.Error(err)
				return
			}
			if <-c.Done(); c.Exit() != (Exit{Code: n % 256}) {
				t.Errorf("child %d ended with %v", n, c.Exit())
			}
		}
	}()
	return count
}

// signalsUntil sends us signals, each when the one before it has reached the witness: two of one kind would be one.
func signalsUntil(t *testing.T, lines <-chan string, over <-chan struct{}) (n int) {
	kinds := []syscall.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGWINCH, 40, lastSignal}
	for ; ; n++ {
		select {
		case <-over:
			return n
		default:
		}
		sig := kinds[n%len(kinds)]
		require.NoError(t, unix.Kill(os.Getpid(), sig))
		require.Equal(t, strconv.Itoa(int(sig)), await(t, lines, signalname.Of(sig)))
	}
}

// forker returns a command that makes n orphans.
func forker(n int) Command {
	cmd := actor("forker")
	cmd.Args = append(cmd.Args, strconv.Itoa(n))
	return cmd
}

// A process that forks, changes its session and ends, again and again, is in no group and seldom in a look.
func TestHostileProcessThatMovesOnIsSwept(t *testing.T) {
	if !runAsInit(t) {
		return
	}
	r := newReaper(t, Options{})
	for range 50 { // they make each look longer
		start(t, r, Command{Path: "/bin/sleep", Args: []string{"sleep", "1000"}})
	}
	for range 50 {
		exitOf(t, start(t, r, actor("mover")))
		sweepAway(t, r)
		orphans := r.Orphans()
		time.Sleep(10 * time.Millisecond) // five moves
		_, err := r.reapNow()
		require.NoError(t, err)
		require.Equal(t, orphans, r.Orphans(), "it has moved on")
	}
}

// moveOn continues in a new process, in a session of its own, every two milliseconds.
//
//go:norace
//go:nosplit
func moveOn() {
	pause := unix.Timespec{Nsec: 2e6}
	for {
		pid, _, _ := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if pid != 0 {
			end(0)
		}
		syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
		syscall.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
	}
}

func init() {
	roles["mover"] = moveOn
	// forker makes orphans in waves: a process in the middle forks a wave and ends, and none of the wave ends before
	// it is an orphan. A fork that only makes system calls is safe in Go, and ten times as fast as a shell's.
	roles["forker"] = func() {
		wanted, err := strconv.Atoi(os.Args[1])
		must(err)
		var pipe [2]int
		for made := 0; made < wanted; made += wave {
			must(unix.Pipe(pipe[:]))
			middle := fork()
			if middle == 0 {
				forkWave(min(wave, wanted-made), pipe)
			}
			must(unix.Close(pipe[0]))
			must(unix.Close(pipe[1]))
			var status unix.WaitStatus
			_, err := unix.Wait4(int(middle), &status, 0, nil)
			must(err)
			if status.ExitStatus() != 0 {
				os.Exit(98)
			}
		}
		os.Exit(42)
	}
}

// fork makes a copy of the process with the calling thread alone. The copy may make raw system calls and end.
//
//go:norace
func fork() uintptr {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		must(errno)
	}
	return pid
}

// forkWave is the process in the middle. Only it holds the pipe open for writing, so a read ends when it does. Each of
// the wave ends with a code of its own, but for one that is killed.
//
//go:norace
//go:nosplit
func forkWave(n int, pipe [2]int) {
	for i := range n {
		pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			end(1)
		}
		if pid == 0 {
			var b [1]byte
			syscall.RawSyscall(unix.SYS_CLOSE, uintptr(pipe[1]), 0, 0)
			syscall.RawSyscall(unix.SYS_READ, uintptr(pipe[0]), uintptr(unsafe.Pointer(&b)), 1)
			if i == 7 {
				self, _, _ := syscall.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
				syscall.RawSyscall(unix.SYS_KILL, self, uintptr(unix.SIGKILL), 0)
			}
			end(uintptr(i))
		}
	}
	end(0)
}

//go:norace
//go:nosplit
func end(code uintptr) {
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, code, 0, 0)
	}
}
