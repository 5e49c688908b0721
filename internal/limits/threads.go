package limits

import (
	"fmt"
	"os"
	"runtime"
	"sync"
)

// runtimeThreads are those that the Go runtime has beside the ones that run goroutines: one watches the others
// (sysmon), one starts threads in place of locked ones, one is locked to the mask of signals, one waits for signals,
// and one for the network. Two more may be going idle while others are made in their place.
const runtimeThreads = 5 + 2

// Reserve makes all threads that the program can ever need, if at most n of its goroutines at once are in a system call
// or locked to a thread. The Go runtime makes a thread when a goroutine waits in a system call and no idle one is
// there; if the kernel refuses it, the runtime aborts the program. It never ends an idle one. If the limits leave no
// room nothing was made, and the error names the limit. Call it once, after the last change of GOMAXPROCS.
func Reserve(n int) error {
	running := runtime.GOMAXPROCS(0)
	n += running
	have := threadsOf("/proc/self/status", os.Getuid())
	if need := uint64(n + running + runtimeThreads); need > have { // n will wait, and others run
		if err := real.hasRoom(need - have); err != nil {
			return err
		}
	}
	// A locked goroutine has its thread for itself while it waits, too.
	var started, ended sync.WaitGroup
	release := make(chan struct{})
	started.Add(n)
	for range n {
		ended.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread() // or the thread would end with the goroutine
			started.Done()
			<-release
		})
	}
	started.Wait()
	close(release)
	ended.Wait()
	return nil
}

// hasRoom is an error if there cannot be that many more threads.
func (s system) hasRoom(need uint64) error {
	if r, known := s.processes(); known && r.left < need {
		return fmt.Errorf("out of processes (%s): %d threads are needed, and there is room for %d", r.words, need, r.left)
	}
	return nil
}
