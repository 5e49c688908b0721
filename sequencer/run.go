package sequencer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Processes starts processes. Package reaper is the real one, through an adapter.
type Processes interface {
	// Start returns once the program is executed. The error is a *StartError where the kernel refused the program.
	Start(c Command) (Process, error)
	// Sweep ends whatever earlier processes left behind: asked first, killed after grace. When it returns none of them
	// is alive. It gives how many there were.
	Sweep(grace time.Duration) (int, error)
}

// Command is a process to start. Standard input, standard output and the working directory are ours.
type Command struct {
	// Path is the program, searched in PATH where it has no slash.
	Path string
	// Args are the arguments without argv[0].
	Args []string
	// Env is added to our environment.
	Env []string
	// Stderr gets all that the process writes there.
	Stderr io.Writer
}

// Process is a process that was started.
type Process interface {
	Pid() int
	// Done is closed when the process has been reaped and all that it wrote on stderr was passed on.
	Done() <-chan struct{}
	// Exit is how it ended; valid after Done.
	Exit() Exit
	// Signal sends sig to the process group. A process that has ended is no error worth handling.
	Signal(sig syscall.Signal) error
}

// StartError says that a program could not be executed.
type StartError struct {
	// Code is CodeNotExecutable or CodeNotFound.
	Code int
	Err  error
}

// Error gives the cause.
func (e *StartError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *StartError) Unwrap() error { return e.Err }

// SignalSource hands out the signals that were sent to the entrypoint, each once and in order.
type SignalSource interface {
	Signals() <-chan syscall.Signal
	// TryTake takes the oldest one without waiting.
	TryTake() (syscall.Signal, bool)
}

// Store keeps the checkpoint. FileStore is the real one.
type Store interface {
	// Load gives found = false, without an error, only where there is no checkpoint.
	Load() (c Checkpoint, found bool, err error)
	// Save returns nil only once the checkpoint is durable.
	Save(c Checkpoint) error
}

// Files is what the sequence asks of the file system besides the checkpoint. Disk is the real one.
type Files interface {
	// Check finds all that is wrong with the files of version i.
	Check(plan *Plan, i int) Problems
	// Digest gives the SHA-256, in hex, of a version's binary. It is called from several goroutines, and quick at the
	// second time.
	Digest(binary string) (string, error)
	// EmptyState reports whether the node that runs with this config would find no state, and where it looks for it.
	EmptyState(config string) (dir string, empty bool)
}

// Options are all that a run depends on. Plan, Processes, Signals, Files, Heights and Log are required.
type Options struct {
	Plan *Plan
	// Store is nil for a run without a checkpoint, which begins at version 0.
	Store     Store
	Processes Processes
	Signals   SignalSource
	Files     Files
	// Heights gives the reader for the node of a version.
	Heights func(v Version) (HeightReader, error)
	// Stderr gets what nodes and migrations write on stderr; nil discards it.
	Stderr io.Writer
	Log    *slog.Logger
	// NodeArgs are passed to every node, after the version's own arguments.
	NodeArgs []string
	// Slack, where not nil, is sov-rollup-manager's height slack, in blocks: exit 0 at most so far below the stop height
	// counts as complete, without a proof.
	Slack *uint64
	// Held are signals other than a stop that came before the run, in their order: they are for the first node.
	Held []syscall.Signal
	// StopTimeout is how long a process may take after a stop signal was passed on to it, before SIGKILL; 0 for ever.
	StopTimeout time.Duration
	// Observe, where not nil, is handed the state of the run after each change, from one goroutine. It must return at once.
	Observe func(State)
	// Preflight, where not nil, looks closely at version i, or, for WholePlan, at what all versions share. It may take long,
	// and is called from several goroutines.
	Preflight func(i int) []Finding
	// Verify, where not nil, compares the files of version i, or, for WholePlan, those that all versions share, with what they
	// are to be. It is called before a version may be started, and an error among what it finds keeps it from being. idly says
	// that nobody waits: it may take its time then, reads every file even where it is known, and is called from another
	// goroutine. When ctx ends it shall return soon, and what it returns then does not count.
	Verify func(ctx context.Context, i int, idly bool) []Finding
	// PreflightBefore is how long before an upgrade, by the present rate, the next version gets another preflight; 0 for
	// never.
	PreflightBefore time.Duration
	// WaitWhenFinished keeps a finished sequence up, idle, until it is asked to stop.
	WaitWhenFinished bool
}

// grace is how long, after SIGTERM, a node that must not run on, or what a node left behind, may live.
const grace = 15 * time.Second

// errStopped ends a run that was asked to stop and has nothing more to say.
var errStopped = errors.New("stopped as asked")

// Run takes the rollup from where the checkpoint says through the versions of the plan. It returns nil when the last
// version is complete, or when it was asked to stop and everything stopped well. Any other end is a *Failure. When it
// returns, no process that it started is alive.
func Run(o Options) error {
	if o.Stderr == nil {
		o.Stderr = io.Discard
	}
	if o.Observe == nil {
		o.Observe = func(State) {}
	}
	if o.Preflight == nil {
		o.Preflight = func(int) []Finding { return nil }
	}
	s := &sequence{Options: o, held: o.Held}
	s.enter(PhasePreparing)
	err := s.run()
	var f *Failure
	switch {
	case errors.Is(err, errStopped):
		o.Log.Info("stopped", slog.String("reason", "a stop signal was received"))
		return nil
	case errors.As(err, &f):
		if file, ok := s.Store.(interface{ Path() string }); ok {
			f.Next = completeCommands(f.Next, s.Plan.File, file.Path())
		}
		if s.at != nil && *s.at <= s.Plan.Last() {
			v := s.Plan.Versions[*s.at]
			f.Version, f.Start, f.Stop, f.Height = s.at, v.Start, v.Stop, s.height
		}
		s.failed(f)
		s.enter(PhaseFailed)
	}
	return err
}

// completeCommands gives the commands that a failure tells their files, so that they can be run as they are.
func completeCommands(text, config, checkpoint string) string {
	const command = "entrypoint checkpoint set"
	return strings.ReplaceAll(text, command, fmt.Sprintf("%s -c %s -f %s", command, quoted(config), quoted(checkpoint)))
}

// quoted is name as a shell takes it.
func quoted(name string) string {
	if strings.ContainsAny(name, " \t\n'\"$&;|<>()*?[]`\\") {
		return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return name
}

// sequence is the state of one run. Everything is done by one goroutine; only heights are read by another.
type sequence struct {
	Options
	record Checkpoint
	next   Next
	// at and height are for a failure: the version that is worked on, and the last height that is known.
	at     *int
	height *uint64
	// arrived is the version that was handed over to in this run, or whose previous version ran on in it: until its node
	// has run, the state is what the version before has made. 0 for none.
	arrived int
	// previousProven: the version before the record's has run on in this run, to its proven stop height.
	previousProven bool
	// stopping is set by the first stop signal and never reset.
	stopping bool
	// held are signals for the node which came while there was none.
	held []syscall.Signal
	// state is what Observe gets.
	state State
	// exitedAt is when the last process ended. left is that of the last one of the version before, until what follows it
	// is started; zero otherwise.
	exitedAt, left time.Time
}

func (s *sequence) run() error {
	if err := s.prepare(); err != nil {
		return err
	}
	for {
		if s.stopRequested() {
			return errStopped
		}
		var err error
		switch s.next {
		case NextFinished:
			return s.finish()
		case NextMigrate, NextMigrateAgain:
			err = s.migrate()
		case NextFinishPrevious:
			err = s.finishPrevious()
		case NextRun:
			err = s.runVersion()
		}
		if err != nil {
			return err
		}
	}
}

// prepare decides where to begin and proves that it can be done. Before its last line nothing is written.
func (s *sequence) prepare() error {
	checkpoint, err := s.load()
	if err != nil {
		return err
	}
	if s.at = new(int); checkpoint != nil {
		*s.at = checkpoint.VersionIndex
	}
	at, err := Resume(s.Plan, checkpoint)
	if err != nil {
		return err
	}
	for _, warning := range at.Warnings {
		s.Log.Warn("plan changed", slog.String("detail", warning))
	}
	s.record, s.next = at.Record, at.Next
	s.state.Record = s.record.clone()
	s.publish()
	if s.next == NextFinished {
		return s.checkState(s.record.VersionIndex)
	}
	if err := s.checkAll(checkpoint); err != nil {
		return err
	}
	if s.stopRequested() {
		return errStopped
	}
	if checkpoint == nil {
		// Over an empty state everything that will be there is made under our eyes.
		_, s.record.Started = s.Files.EmptyState(s.Plan.Versions[0].Config)
	}
	s.record.BinaryPath = s.Plan.Versions[s.record.VersionIndex].Binary
	if err := s.addDigest(&s.record); err != nil {
		return err
	}
	// Also proves that the volume can be written before anything depends on it.
	return s.save("nothing was started")
}

// load reads the checkpoint; nil where there is none.
func (s *sequence) load() (*Checkpoint, error) {
	if s.Store == nil {
		s.Log.Info("no checkpoint is kept", slog.String("detail", "every start begins at version 0"))
		s.warnMigrationsWithoutCheckpoint()
		return nil, nil
	}
	c, found, err := s.Store.Load()
	if err != nil {
		return nil, unreadable(err)
	}
	if !found {
		s.Log.Info("no checkpoint found", slog.String("detail", "starting with version 0"))
		return nil, nil
	}
	s.Log.Info("checkpoint found", slog.Int("version", c.VersionIndex), slog.String("phase", string(c.Phase)), slog.String("binary", c.BinaryPath))
	return &c, nil
}

// unreadable is the end for a checkpoint that cannot be read.
func unreadable(err error) *Failure {
	f := failf(CodeCheckpointUnreadable, "the checkpoint cannot be read").because(err)
	if errors.Is(err, ErrNoFile) {
		return f.safe("nothing was started").next("mount the directory that holds the checkpoint, and name a file in it")
	}
	return f.safe("nothing was started and the file was left as it is").
		next("say which version the state belongs to, as the last 'version started' in the log tells, with 'entrypoint checkpoint set --version N', and with --migrated if its migration has completed; a node refuses a wrong one; delete the file only if the state is empty")
}

func (s *sequence) warnMigrationsWithoutCheckpoint() {
	if slices.ContainsFunc(s.Plan.Versions, func(v Version) bool { return v.Migration != "" }) {
		s.Log.Warn("migrations are not recorded", slog.String("detail", "without a checkpoint file a restart can run a completed migration again"))
	}
}

// checkAll checks the files of all versions, the binary of the checkpoint and the state that it speaks of.
func (s *sequence) checkAll(checkpoint *Checkpoint) error {
	now := s.record.VersionIndex
	var problems Problems
	for i := range s.Plan.Versions {
		found := s.Files.Check(s.Plan, i)
		if i >= now {
			problems = append(problems, found...)
			continue
		}
		for _, problem := range found {
			s.Log.Warn("a version that is complete has a problem", slog.Int("version", i), slog.String("detail", problem))
		}
	}
	if s.stopRequested() {
		return errStopped
	}
	if len(problems) == 0 {
		problems = s.preflightAll(now)
	}
	if len(problems) > 0 {
		return failf(CodeMismatch, "files of the plan are not in order").because(problems).
			safe("nothing was started").next("mend them and start again")
	}
	if err := s.verifyFirst(now); err != nil {
		return err
	}
	if checkpoint == nil {
		return nil
	}
	moved, err := MatchBinary(s.Plan, *checkpoint, func(i int) (string, error) { return s.Files.Digest(s.Plan.Versions[i].Binary) })
	if err != nil {
		return err
	}
	if moved {
		s.Log.Info("binary moved", slog.Int("version", now), slog.String("from", checkpoint.BinaryPath), slog.String("to", s.Plan.Versions[now].Binary))
	}
	return s.checkState(now)
}

// checkState refuses a late version on an empty volume: its node would commit a genesis there before it notices.
func (s *sequence) checkState(now int) error {
	dir, empty := s.Files.EmptyState(s.Plan.Versions[now].Config)
	if !empty || (now == 0 && s.next != NextFinished) {
		return nil
	}
	return emptyState(s.Plan, now, s.next, dir)
}

func emptyState(plan *Plan, now int, next Next, dir string) *Failure {
	where := "at"
	if next == NextFinished {
		where = "at the end of"
	}
	return failf(CodeMismatch, "the checkpoint is %s %s, but the state directory %s is empty", where, plan.label(now), dir).
		safe("nothing was started").
		next("mount or restore the state, or, to sync again from genesis, delete the checkpoint too")
}

// addDigest records what binary is about to run. A version whose binary was replaced in place is run, loudly: a bug fix
// release at the same path is common.
func (s *sequence) addDigest(c *Checkpoint) error {
	sum, err := s.Files.Digest(c.BinaryPath)
	if err != nil {
		return failf(CodeMismatch, "%s cannot be started", s.Plan.label(c.VersionIndex)).because(err).
			safe("it was not started").next("make its binary readable and start again")
	}
	if c.BinarySHA256 != "" && c.BinarySHA256 != sum {
		s.Log.Warn("binary changed", slog.Int("version", c.VersionIndex), slog.String("binary", c.BinaryPath), slog.String("was", c.BinarySHA256), slog.String("is", sum))
	}
	c.BinarySHA256 = sum
	return nil
}

// save makes the record durable. safe says what is not lost where that fails.
func (s *sequence) save(safe string) error {
	if s.Store == nil {
		s.state.Record = s.record.clone()
		s.publish()
		return nil
	}
	s.record.UpdatedAt = recordTime()
	began := time.Now()
	err := s.Store.Save(s.record.clone())
	var f *Failure
	if err != nil {
		f = failf(CodeCheckpointNotWritable, "the checkpoint cannot be written").because(err).
			safe(safe).next("make the volume writable, with free space, and start again")
		s.failed(f)
	}
	s.wrote(began, err)
	if f != nil {
		return f
	}
	return nil
}

// recordTime is now, as a checkpoint has it.
func recordTime() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// finish ends a complete sequence.
func (s *sequence) finish() error {
	i := s.record.VersionIndex
	s.enter(PhaseFinished)
	s.Log.Info("sequence finished", slog.Int("version", i), slog.Uint64("height", s.Plan.Versions[i].Stop))
	if !s.WaitWhenFinished {
		return nil
	}
	s.Log.Info("waiting for a stop signal")
	for !s.stopping {
		s.note(<-s.Signals.Signals())
	}
	return errStopped
}

// stopRequested takes all signals that have arrived and reports whether a stop was asked for. It stands before every
// start.
func (s *sequence) stopRequested() bool {
	for {
		sig, ok := s.Signals.TryTake()
		if !ok {
			return s.stopping
		}
		s.note(sig)
	}
}

// note takes a signal while no node runs: a stop is remembered, anything else is kept for the next node.
func (s *sequence) note(sig syscall.Signal) {
	if IsStop(sig) {
		s.requestStop(sig)
		return
	}
	if !slices.Contains(s.held, sig) { // as the kernel does with pending signals
		s.held = append(s.held, sig)
	}
}

func (s *sequence) requestStop(sig syscall.Signal) {
	if !s.stopping {
		s.Log.Info("stop requested", slog.String("signal", signalName(sig)))
	}
	s.stopping, s.state.Stopping = true, true
	s.publish()
}

// IsStop reports whether sig means: end, and start nothing more. TERM, INT and QUIT do; a node shuts down on them.
func IsStop(sig syscall.Signal) bool {
	return sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGQUIT
}

// signalName is the name as signal(7) has it, or the number of a real-time signal.
func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(sig))
}
