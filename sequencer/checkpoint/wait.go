package checkpoint

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/procfs"
)

// lockWait is how long to wait for a lock whose holder is unknown: it may be ending, with its container.
const lockWait = 5 * time.Second

// ErrStopped says that a wait was ended before the lock was free.
var ErrStopped = errors.New("a stop signal was received while a lock was awaited")

// Wait is what happens while another process has a lock.
type Wait struct {
	Log *slog.Logger
	// Stderr gets what the processes of a dead entrypoint write to their stderr. Nil: it is not read.
	Stderr io.Writer
	// Left is called at each look with the processes that a dead entrypoint left running.
	Left func([]Process)
	// Pause waits for that time, or a little less, and reports false if the wait must end.
	Pause func(time.Duration) bool
}

// Open is the Open of this package, but waits for a lock that may become free. What a dead entrypoint left running is
// waited for without a limit: to end a node while it works may damage the state. An unknown holder is waited for
// lockWait, one that is known to live not at all. The error is ErrStopped if Pause has ended the wait.
func (w Wait) Open(path, storage string) (*Store, error) {
	a := awaited{Wait: w, since: time.Now(), read: map[string]bool{}}
	for {
		store, err := Open(path, storage)
		var held *LockHeldError
		if err == nil || !errors.As(err, &held) || !a.continues(held) {
			return store, err
		}
		a.note(held)
		if !w.Pause(a.pause()) {
			return nil, ErrStopped
		}
	}
}

// awaited is a lock that is waited for.
type awaited struct {
	Wait
	since time.Time
	// looks is how often a dead holder was found.
	looks int
	// logged is when that was logged last, and unknown whether an unknown holder was.
	logged  time.Time
	unknown bool
	// read are the pipes, by name, that are read in place of a dead entrypoint.
	read map[string]bool
}

// continues reports whether the wait continues for a lock that is held.
func (a *awaited) continues(held *LockHeldError) bool {
	if held.HolderGone {
		a.looks++
		return true
	}
	return held.Pid == 0 && time.Since(a.since) < lockWait
}

// pause is the time until the next look. A look reads all of /proc, so looks become rare.
func (a *awaited) pause() time.Duration {
	return min(50*time.Millisecond+time.Since(a.since)/10, time.Second)
}

// note makes known what is waited for, and logs it at the second look and every minute: what the first look finds may
// be another process that only looks.
func (a *awaited) note(held *LockHeldError) {
	a.Left(held.Left)
	pids, commands := []int{}, []string{}
	for _, left := range held.Left {
		pids, commands = append(pids, left.Pid), append(commands, left.Command)
		if a.Stderr != nil {
			a.readStderr(left.Pid)
		}
	}
	switch {
	case !held.HolderGone && !a.unknown:
		a.unknown = true
		a.Log.Info("lock held by an unknown process", slog.String("file", held.Path))
	case a.looks >= 2 && time.Since(a.logged) >= time.Minute:
		a.logged = time.Now()
		a.Log.Warn("waiting for what a dead entrypoint left running", slog.Any("pids", pids), slog.Any("commands", commands),
			slog.Int("seconds", int(time.Since(a.since).Seconds())), slog.String("file", held.Path))
	}
}

// readStderr reads the stderr of process pid from now on, if it is a pipe that its dead entrypoint read. Nobody has
// read it since: once it is full the process would wait forever, and hold the state.
func (a *awaited) readStderr(pid int) {
	fds := filepath.Join(procfs.Root, strconv.Itoa(pid), "fd")
	pipe, err := os.Readlink(filepath.Join(fds, "2"))
	if err != nil || !strings.HasPrefix(pipe, "pipe:") || a.read[pipe] {
		return
	}
	entries, _ := os.ReadDir(fds)
	for _, entry := range entries {
		// A process that has the reading end of its own stderr inherited it from its entrypoint
		// (reaper.Command.HoldPipes).
		fd := filepath.Join(fds, entry.Name())
		if link, err := os.Readlink(fd); err != nil || link != pipe || !isReadingEnd(pid, entry.Name()) {
			continue
		}
		if end, err := os.OpenFile(fd, os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			a.read[pipe] = true
			go func() {
				defer end.Close()
				_, _ = io.Copy(a.Stderr, end) // it ends with the last writer
			}()
			return
		}
	}
}

// isReadingEnd reports whether a descriptor of process pid can only be read (proc_pid_fdinfo(5)).
func isReadingEnd(pid int, fd string) bool {
	text, _ := os.ReadFile(filepath.Join(procfs.Root, strconv.Itoa(pid), "fdinfo", fd))
	for line := range strings.Lines(string(text)) {
		if octal, ok := strings.CutPrefix(line, "flags:"); ok {
			flags, err := strconv.ParseInt(strings.TrimSpace(octal), 8, 64)
			return err == nil && flags&unix.O_ACCMODE == unix.O_RDONLY
		}
	}
	return false
}
