package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/internal/regularfile"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

const (
	terminationFlag = "termination-log"
	// kubernetesTermination is where Kubernetes looks for the reason why a container ended, which it shows in the pod's
	// status. It mounts an empty file there. If there is no file, nobody looks.
	kubernetesTermination = "/dev/termination-log"
	// terminationLimit is in bytes. Kubernetes cuts longer messages.
	terminationLimit = 4096
	// terminationTimeout is for the write, which never ends on a file system that hangs. The exit must not wait for
	// that.
	terminationTimeout = 2 * time.Second
	// terminationStart begins each message. A file that begins with it may be overwritten.
	terminationStart = "entrypoint: exit code "
	// longLine is how many bytes of a line of stderr are kept if not everything fits.
	longLine = 300
)

// terminationFile is where a termination message goes.
type terminationFile struct {
	path string // empty: nowhere
	// asked: an operator named it, and expects it to be written.
	asked bool
}

// registerTermination registers --termination-log; what says what fails.
func registerTermination(flags *flagSet, file *string, what string) {
	flags.StringVar(file, terminationFlag, kubernetesTermination, "write the reason of a failed "+what+" to `FILE`, at most 4096 bytes; created if absent, except the default one (empty: none)")
}

// terminationOf finds out where the message goes, even if the arguments could not be parsed completely. That of a check in
// the container of a run, whose file would then say of the run what a check has found, goes only where an argument says.
func terminationOf(flags *flagSet) terminationFile {
	path, given := flags.value(terminationFlag)
	if !given {
		path = kubernetesTermination
	}
	asArgument := flags.given(terminationFlag) && !flags.fromEnv[terminationFlag]
	if flags.Name() == "check" && !asArgument && besideAnother() {
		return terminationFile{}
	}
	return terminationFile{path: path, asked: path != kubernetesTermination}
}

// notForTermination says why the file of the message cannot have this name; nil if it can. Where there is no checkpoint or
// stamp yet, the message would be taken for one.
func notForTermination(file, checkpointFile string) error {
	if file == "" {
		return nil
	}
	file = checkpoint.ResolveLinks(file)
	switch {
	case checkpointFile != "" && sameName(file, checkpoint.ResolveLinks(checkpointFile)):
		return errors.New("--termination-log and --checkpoint-file name the same file: use two different files")
	case filepath.Base(file) == checkpoint.StampFile:
		return fmt.Errorf("--termination-log has the name of the stamp in the state, %s: give the message another name", checkpoint.StampFile)
	}
	return nil
}

// besideAnother reports whether process 1 is another entrypoint, as for a command in 'docker exec' or 'kubectl exec'.
func besideAnother() bool {
	self, err := os.ReadFile("/proc/self/comm")
	first, firstErr := os.ReadFile("/proc/1/comm")
	return os.Getpid() != 1 && err == nil && firstErr == nil && bytes.Equal(self, first)
}

// terminationOfMistake is terminationOf for arguments that are wrong. If they also give the message a name that is refused,
// it is not written: it would be taken for a checkpoint, or hold the sequence.
func terminationOfMistake(flags *flagSet) terminationFile {
	t := terminationOf(flags)
	record := checkpointOf(flags)
	named, _ := flags.value("checkpoint-file")
	hold, _ := flags.value("hold-file")
	isHold := notForHold(holdFile(record, hold), "", t.path) != nil
	if isHold || notForTermination(t.path, named) != nil || notForTermination(t.path, record) != nil {
		return terminationFile{}
	}
	return t
}

// sameName reports whether two paths are spelled alike, apart from dots and slashes.
func sameName(a, b string) bool { return filepath.Clean(a) == filepath.Clean(b) }

// write writes the message to the file, within two seconds or not at all. If nobody named a file, failing is no error.
func (t terminationFile) write(message string) error {
	if t.path == "" {
		return nil
	}
	err, answered := inTime(terminationTimeout, func() error { return t.replace(message) })
	switch {
	case !t.asked:
		return nil
	case !answered:
		return fmt.Errorf("%s: %w", t.path, errNoAnswer)
	}
	return err
}

var errNoAnswer = errors.New("the file system does not answer")

// inTime gives what f gives, or nothing if that takes longer than limit. Then f continues, as long as the process does.
func inTime[T any](limit time.Duration, f func() T) (result T, answered bool) {
	done := make(chan T, 1)
	go func() { done <- f() }()
	select {
	case result = <-done:
		return result, true
	case <-time.After(limit):
		return result, false
	}
}

// replace overwrites the file in place, because a mounted file cannot be replaced. It opens only regular files, and
// leaves a file with other content alone: a name, or a symbolic link, that leads to a checkpoint is a mistake.
func (t terminationFile) replace(message string) error {
	file, err := regularfile.OpenFile(t.path, os.O_RDWR)
	switch absent := errors.Is(err, fs.ErrNotExist); {
	case absent && !t.asked:
		return nil
	case absent:
		file, err = os.OpenFile(t.path, os.O_RDWR|os.O_CREATE|unix.O_NONBLOCK, 0o644)
	}
	if err != nil {
		return err //nolint:wrapcheck // it names the operation and the file
	}
	defer file.Close()
	if !isOurs(file) {
		return fmt.Errorf("%s has other content and was not changed: give the message its own file", t.path)
	}
	if err := file.Truncate(0); err != nil {
		return err //nolint:wrapcheck // it names the operation and the file
	}
	_, err = file.WriteAt([]byte(message), 0)
	return err //nolint:wrapcheck // it names the operation and the file
}

// isOurs reports whether the file is empty or holds an earlier message.
func isOurs(file io.ReaderAt) bool {
	head := make([]byte, len(terminationStart))
	n, err := file.ReadAt(head, 0)
	return (err == nil || errors.Is(err, io.EOF)) && (n == 0 || bytes.Equal(head[:n], []byte(terminationStart)))
}

// terminationMessage describes a failure for people who see nothing else, in at most 4096 bytes of UTF-8.
func terminationMessage(f *sequencer.Failure) string {
	cause := ""
	if f.Err != nil {
		cause = ": " + plain.Escape(f.Err.Error())
	}
	head := fmt.Sprintf("%s%d: %s", terminationStart, f.Code, plain.Escape(f.What))
	rest := "\n"
	if heights := heightsInWords(f); heights != "" {
		rest += heights + "\n"
	}
	for _, part := range [][2]string{{"safe: ", f.Safe}, {"next: ", f.ToDo()}} {
		if part[1] != "" {
			rest += part[0] + plain.Escape(part[1]) + "\n"
		}
	}
	quote := lastWords(f.Stderr, terminationLimit-len(head)-len(cause)-len(rest))
	// If there is no room, stderr goes first, since the log has it too, then the cause. What to do always stays.
	cause = plain.Cut(cause, terminationLimit-len(head)-len(rest)-len(quote))
	return plain.Cut(head+cause+rest+quote, terminationLimit)
}

func heightsInWords(f *sequencer.Failure) string {
	if f.Version == nil {
		return ""
	}
	last, to := "none known", "without end"
	if f.Height != nil {
		last = fmt.Sprintf("%d was the last one known", *f.Height)
	}
	if f.Stop > 0 {
		to = fmt.Sprintf("to %d", f.Stop)
	}
	return fmt.Sprintf("heights: %s; version %d is from %d %s", last, *f.Version, f.Start, to)
}

// lastWords quotes the last lines of stderr in at most limit bytes. It first leaves out the middle of long lines, then
// earlier lines.
func lastWords(stderr string, limit int) string {
	const title = "stderr:\n"
	if stderr == "" {
		return ""
	}
	lines := strings.Split(plain.Escape(plain.Uncoloured(stderr)), "\n")
	length := func() int { return len(title) + len("  \n")*len(lines) + len(strings.Join(lines, "")) }
	if length() > limit {
		for i := range lines {
			lines[i] = plain.Cut(lines[i], longLine)
		}
	}
	for len(lines) > 0 && length() > limit {
		lines = lines[1:]
	}
	if len(lines) == 0 {
		return ""
	}
	return title + "  " + strings.Join(lines, "\n  ") + "\n"
}

// terminateUsage reports a mistake on the command line of the command that flags are of: run or check.
func terminateUsage(p program, flags *flagSet, err error) {
	f := &sequencer.Failure{
		Code: sequencer.CodeUsage, What: "the command line or the environment is wrong", Err: err,
		Safe: "nothing was started", Next: "fix the arguments or the " + envPrefix + " variables of the container: 'entrypoint " + flags.Name() + " --help' lists them",
	}
	terminationOfMistake(flags).writeOrSay(p, f)
	if flags.Name() == "run" {
		newLastRun(newLog(p.stderr, true, slog.LevelInfo), checkpointOf(flags)).end(f)
	}
}

// writeOrSay writes the message of a command that has no log, or says why it is not written.
func (t terminationFile) writeOrSay(p program, f *sequencer.Failure) {
	if err := t.write(terminationMessage(f)); err != nil {
		fmt.Fprintf(p.stderr, "entrypoint: termination message not written: %s\n", err)
	}
}
