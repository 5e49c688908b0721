package preflight

import (
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// The numbers of ioprio_set(2), which package unix does not have: this thread; only when nobody else wants the disk.
	ioprioWhoProcess = 1
	ioprioIdle       = 3 << 13
	// idleNice is not 19: now and then the garbage collector waits for each thread that runs Go, and beside a busy node such
	// a thread would hardly ever run.
	idleNice = 10
)

// onIdleThread runs f, which must not hand its work to other goroutines, on a thread that gets the disk and the processor
// only when others leave them idle. A child inherits these priorities from the thread that starts it, so this one is never
// used for anything else. It is made once: when a node has used up the limit of processes no other can be made.
func onIdleThread(f func()) {
	done := make(chan struct{})
	idleThread() <- func() { f(); close(done) }
	<-done
}

// idleThread gives the queue of that thread.
var idleThread = sync.OnceValue(func() chan<- func() {
	jobs := make(chan func())
	go workIdly(jobs)
	return jobs
})

// workIdly works on a thread that it keeps for life.
func workIdly(jobs <-chan func()) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The priority of the first thread of a process is shown as that of the process. While it is held here the next
		// goroutine gets another one.
		elsewhere := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(elsewhere)
			workIdly(jobs)
		}()
		<-elsewhere
		runtime.UnlockOSThread()
		return
	}
	// If this fails it is only less polite.
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioIdle)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, idleNice)
	for job := range jobs {
		job()
	}
}
