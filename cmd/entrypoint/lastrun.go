package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"rollup-entrypoint/internal/layout"
	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// recordTimeout is for a read and a write of the record, which never end on a file system that hangs.
const recordTimeout = 5 * time.Second

// lastRun keeps the record of this run beside the checkpoint, which outlives the container. Nothing depends on it: a
// volume that cannot be written, or hangs, changes neither the run nor its exit code.
type lastRun struct {
	log *slog.Logger
	// path is the checkpoint, empty for none.
	path string
	// store has the locks, nil as long as we do not have them.
	store *checkpoint.Store
	run   checkpoint.LastRun
	// ended: the end is recorded, or that was tried. warned: a failure to write was logged.
	ended, warned bool
}

func newLastRun(log *slog.Logger, path string) *lastRun {
	return &lastRun{log: log, path: path, run: checkpoint.NewRun(version, time.Now())}
}

// begin records that this run has the locks, and names one before it that ended without a word. It gives the run before,
// nil if none is known.
func (l *lastRun) begin(store *checkpoint.Store) *checkpoint.LastRun {
	l.store = store
	if l.path == "" {
		return nil
	}
	type result struct {
		before            *checkpoint.LastRun
		unreadable, wrong error
	}
	run := l.run
	r, answered := inTime(recordTimeout, func() (r result) {
		r.before, r.unreadable = store.RunBefore()
		if b := r.before; b != nil && b.EndedAt == nil {
			b.Unended = unendedInWords(*b, run.BootID, memoryInWords(cgroupRoot))
		}
		run.Previous = r.before
		r.wrong = store.SaveLastRun(run)
		return r
	})
	if !answered {
		r.wrong = errNoAnswer
	}
	l.run.Previous = r.before
	if r.unreadable != nil {
		l.log.Warn("record of the last run not readable", slog.String("error", r.unreadable.Error()))
	}
	if b := r.before; b != nil && b.EndedAt == nil {
		l.log.Warn("last run ended without a word", slog.Time("began_at", b.BeganAt), slog.String("detail", b.Unended))
	}
	l.warn(r.wrong)
	if r.wrong == nil {
		go store.SyncLastRun() // the start does not wait for the disk
	}
	return r.before
}

// end records how the run ended, once. Without the locks that is done only for a failure.
func (l *lastRun) end(err error) {
	if l.ended || l.path == "" || err == nil && l.store == nil {
		return
	}
	l.ended = true
	if errors.As(err, new(*checkpoint.LockLostError)) {
		return // another run may have its record there by now
	}
	run := l.run
	run.End(0, nil)
	if err != nil {
		f := asFailure(err)
		run.End(f.Code, lastWordsOf(f))
	}
	wrong, answered := inTime(recordTimeout, func() error {
		if l.store == nil {
			return checkpoint.RecordRefused(l.path, run)
		}
		return l.store.SaveLastRun(run)
	})
	if !answered {
		wrong = errNoAnswer
	}
	l.warn(wrong)
}

// warn logs the first failure to write the record.
func (l *lastRun) warn(err error) {
	if err == nil || l.warned {
		return
	}
	l.warned = true
	l.log.Warn("run not recorded", slog.String("error", err.Error()))
}

// unendedInWords says what is known of a run whose end is not recorded. bootID is that of the kernel now, memory what it
// has counted.
func unendedInWords(r checkpoint.LastRun, bootID, memory string) string {
	if r.BootID != "" && bootID != "" && r.BootID != bootID {
		return fmt.Sprintf("ended without a word: the machine has been restarted since then, or the run was on another one, on host %q", plain.Cut(r.Host, longLine))
	}
	if memory != "" {
		return endedWithoutWord + "; " + memory
	}
	return endedWithoutWord
}

// lastWordsOf is a failure as it is kept, with no more in it than its termination message has.
func lastWordsOf(f *sequencer.Failure) *checkpoint.LastWords {
	w := &checkpoint.LastWords{
		Cause: string(f.Cause), What: plain.Escape(f.What), Safe: plain.Escape(f.Safe), Next: plain.Escape(f.Next), Text: terminationMessage(f),
	}
	if f.Err != nil {
		w.Error = plain.Escape(f.Err.Error())
	}
	for _, r := range f.Remedies {
		w.Commands = append(w.Commands, checkpoint.LastCommand{When: plain.Escape(r.When), Command: r.Command()})
	}
	return w
}

// checkpointOf is the checkpoint of a run whose command line is wrong; empty if it is not certain which one it is.
func checkpointOf(flags *flagSet) string {
	if _, none := flags.value("no-checkpoint-file"); none {
		return ""
	}
	path, given := flags.value("checkpoint-file")
	if !given && layout.In(layout.Root) {
		path = layout.Checkpoint
	}
	return path
}

// printLastRun prints the record of the last run, beside the checkpoint at path.
func printLastRun(w io.Writer, path string) {
	r, err := readLastRun(path)
	switch {
	case err != nil:
		printLine(w, "last run", "unknown: %s", err)
	case r != nil:
		printRun(w, "last run", *r, withoutEnd(path))
		if r.Previous != nil {
			printRun(w, "before it", *r.Previous, cmp.Or(r.Previous.Unended, endedWithoutWord))
		}
	}
}

// printLastFailure prints, in a line, why the last run failed, if it did.
func printLastFailure(w io.Writer, path string) {
	if r, err := readLastRun(path); err == nil && r != nil && r.Failure != nil && r.EndedAt != nil {
		words, _, _ := strings.Cut(r.Failure.Text, "\n")
		printLine(w, "last run", "ended %s with exit code %s", r.EndedAt.Format(timeFormat), strings.TrimPrefix(words, terminationStart))
	}
}

func readLastRun(path string) (*checkpoint.LastRun, error) {
	if path == "" {
		return nil, nil
	}
	return checkpoint.ReadLastRun(path) //nolint:wrapcheck // it names the file
}

const endedWithoutWord = "ended without a word: it was killed (SIGKILL), or its end could not be recorded"

// withoutEnd is what it means that no end is recorded for the last run. Who holds the lock tells.
func withoutEnd(path string) string {
	held, err := checkpoint.Holder(checkpoint.LockPath(path))
	switch {
	case err != nil:
		return "no end is recorded, and whether it is still running cannot be found out: " + err.Error()
	case held == nil || held.HolderGone:
		return endedWithoutWord
	}
	return "it is running: " + held.Error()
}

// printRun prints a run for a person; unended says what it means if no end is recorded.
func printRun(w io.Writer, label string, r checkpoint.LastRun, unended string) {
	printLine(w, label, "began %s, pid %d on host %q, entrypoint %s", r.BeganAt.Format(timeFormat), r.Pid, r.Host, r.Entrypoint)
	switch {
	case r.EndedAt == nil:
		printLine(w, "", "%s", unended)
		return
	case r.Refused:
		printLine(w, "", "ended %s with exit code %d, before it had the locks", r.EndedAt.Format(timeFormat), *r.ExitCode)
	default:
		printLine(w, "", "ended %s with exit code %d", r.EndedAt.Format(timeFormat), *r.ExitCode)
	}
	if r.Failure != nil {
		for line := range strings.Lines(strings.TrimPrefix(r.Failure.Text, fmt.Sprintf("%s%d: ", terminationStart, *r.ExitCode))) {
			printLine(w, "", "%s", strings.TrimSuffix(line, "\n"))
		}
	}
}
