package sequencer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/sequencer/checkpoint"
)

// Processes starts processes. Package reaper is the real one, through an adapter.
type Processes interface {
	// Start returns once the program is executed. The error is a *StartError where the kernel refused the program.
	Start(c Command) (Process, error)
	// Sweep ends whatever earlier processes left behind: asked first, killed after grace. When it returns none of them
	// is alive. It gives how many there were.
	Sweep(grace time.Duration) (int, error)
}

// Command is a process to start. Standard input and the working directory are ours.
type Command struct {
	// Path is the program, searched in PATH where it has no slash.
	Path string
	// Args are the arguments without argv[0].
	Args []string
	// Env is added to our environment.
	Env []string
	// Stdout and Stderr get all that the process writes there; Stdout is ours where it is nil.
	Stdout, Stderr io.Writer
}

// Process is a process that was started.
type Process interface {
	Pid() int
	// Done is closed when the process has been reaped and all that it wrote was passed on.
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

// Store keeps the stamp in the state and the checkpoint. checkpoint.Store is the real one.
type Store interface {
	// Load gives what is on disk. The error is a *checkpoint.UnreadableError where a file is torn or foreign.
	Load() (checkpoint.Found, error)
	// LoadState is Load without the checkpoint.
	LoadState() (checkpoint.Found, error)
	// SaveStamp and SaveCheckpoint return nil only once the file is durable.
	SaveStamp(s checkpoint.Stamp) error
	SaveCheckpoint(c checkpoint.Checkpoint) error
	// KeepCheckpoint keeps the present checkpoint under another name, which it gives.
	KeepCheckpoint() (kept string, err error)
	// SyncState makes durable what a migration has written.
	SyncState() error
}

// Files is what the sequence asks of the file system besides the record. Disk is the real one.
type Files interface {
	// Check finds all that is wrong with the files of version i.
	Check(plan *Plan, i int) Problems
	// Digest gives the SHA-256, in hex, of a version's binary. It is called from several goroutines, and quick while the
	// file is the same.
	Digest(binary string) (string, error)
	// Storage gives the directory, absolute and without symbolic links, in which a program that is started now with this
	// config finds the state; empty where the config does not say so.
	Storage(config string) (string, error)
	// SameDirectory reports whether two names lead to one directory.
	SameDirectory(a, b string) bool
}

// Options are all that a run depends on. Plan, Store, Processes, Signals, Files, Heights and Log are required.
type Options struct {
	Plan      *Plan
	Store     Store
	Processes Processes
	Signals   SignalSource
	Files     Files
	// Checkpoint is the checkpoint file, for messages; empty for a run without one.
	Checkpoint string
	// Heights gives the reader for the node of a version.
	Heights func(v Version) (HeightReader, error)
	// Stderr gets what nodes and migrations write on stderr; nil discards it.
	Stderr io.Writer
	Log    *slog.Logger
	// NodeArgs are passed to every node, after the version's own arguments.
	NodeArgs []string
	// Slack, where not nil, is sov-rollup-manager's height slack, in blocks: exit 0 at most so far below the stop height
	// counts as complete. It means nothing for a node that can be asked.
	Slack *uint64
	// Restarts is how often within ten minutes a node that exits 0 below its stop height is started again.
	Restarts int
	// Nonce gives a start height that no chain has, new each time: at least 2^48, below 2^63. Nil: a random one.
	Nonce func() uint64
	// Held are signals other than a stop that came before the run, in their order: they are for the first node.
	Held []syscall.Signal
	// StopTimeout is how long a process may take after a stop signal was passed on to it, before SIGKILL; 0 for ever.
	StopTimeout time.Duration
	// Observe, where not nil, is handed the state of the run after each change, from one goroutine. It must return at once.
	Observe func(State)
	// Preflight, where not nil, looks closely at version i, or, for WholePlan, at what all versions share. It may take long,
	// and is called from several goroutines.
	Preflight func(i int) []Finding
	// Verify, where not nil, compares the files of version i, or, for WholePlan, those that all versions share, with the
	// manifest. It is called before a version may be started, and an error among what it finds keeps it from being started.
	// idly says that nobody waits: it may take its time then, reads every file even where it is known, and is called from
	// another goroutine. When ctx ends it shall return soon, and what it returns then does not count.
	Verify func(ctx context.Context, i int, idly bool) []Finding
	// PreflightBefore is how long before an upgrade, by the present rate, the next version gets another preflight; 0 for
	// never.
	PreflightBefore time.Duration
	// WaitWhenFinished keeps a finished sequence up, idle, until it is asked to stop.
	WaitWhenFinished bool
}

// grace is how long, after SIGTERM, what a node left behind may live.
const grace = 15 * time.Second

// errStopped ends a run that was asked to stop and has nothing more to say.
var errStopped = errors.New("stopped as asked")

// Run takes the rollup from where its record says through the versions of the plan. It returns nil when the last version is
// complete, or when it was asked to stop and everything stopped well. Any other end is a *Failure. When it returns, no
// process that it started is alive.
func Run(o Options) error {
	s := newSequence(o)
	defer s.follower.finish() // also of a run whose goroutine ends in its middle
	return s.end(s.run())
}

// Report is what is known of a state at rest, and what a start would do.
type Report struct {
	Stamp   checkpoint.Stamp
	Durable Durable
	Step    Step
}

// Ask does what Run does up to the first step, and gives that instead of doing it: it asks the node of the stamped version
// for the height of the state. Like Run it stamps a state that has no stamp yet and whose version is proven.
func Ask(o Options) (Report, error) {
	s := newSequence(o)
	defer s.follower.finish()
	var step Step
	err := s.prepare()
	if err == nil && s.durable.Knowledge != NoState { // without a state there is nothing to stamp, and nobody to ask
		err = s.settle()
	}
	if err == nil {
		step, err = s.decide()
	}
	if err = s.end(err); err != nil {
		return Report{}, err
	}
	return Report{Stamp: s.record.stamp, Durable: s.durable, Step: step}, nil
}

func newSequence(o Options) *sequence {
	if o.Stderr == nil {
		o.Stderr = io.Discard
	}
	if o.Observe == nil {
		o.Observe = func(State) {}
	}
	if o.Preflight == nil {
		o.Preflight = func(int) []Finding { return nil }
	}
	if o.Nonce == nil {
		o.Nonce = randomNonce
	}
	s := &sequence{Options: o, held: o.Held, first: map[string]string{}}
	s.follower = newFollower(o.Store, o.Log)
	s.enter(PhasePreparing)
	return s
}

// end waits until the checkpoint has followed, and completes a failure.
func (s *sequence) end(err error) error {
	s.follower.finish()
	s.publish()
	var f *Failure
	switch {
	case errors.Is(err, errStopped):
		s.Log.Info("stopped", slog.String("reason", "a stop signal was received"))
		return nil
	case errors.As(err, &f):
		f = f.withFiles(s.Plan.File, s.Checkpoint)
		if s.at != nil && *s.at <= s.Plan.Last() {
			v := s.Plan.Versions[*s.at]
			f.Version, f.Start, f.Stop, f.Height = s.at, v.Start, v.Stop, s.height
		}
		s.failed(f)
		s.enter(PhaseFailed)
	}
	return err
}

// sequence is the state of one run. Everything is done by one goroutine; only heights are read, and the checkpoint is
// written, by others.
type sequence struct {
	Options
	record  record
	durable Durable
	// stamped: the record's stamp is on disk. storage is the directory of the state, empty where it is not known; the stamp
	// is in the checkpoint then.
	stamped  bool
	storage  string
	follower *follower
	// keep: the checkpoint is kept under another name before it is corrected.
	keep bool
	// at and height are for a failure: the version that is worked on, and the last height that is known.
	at     *int
	height *uint64
	// stranger: another process answered on the port of the last node before it was started.
	stranger bool
	// bySlack: the stamped version counts as complete by --height-slack.
	bySlack bool
	// restarts are when a node was started again in place, lately. again: the next start is one.
	restarts []time.Time
	again    bool
	// ended is the last run of the stamped version's node, if it exited 0 and has not been asked since.
	ended *nodeRun
	// first has the digest of each binary that was started in this run.
	first map[string]string
	// stopping: a stop was requested. held are other signals that came while no node ran.
	stopping bool
	held     []syscall.Signal
	state    State
	// exitedAt is when the last process ended. left is that of the last one of the version before, until what follows it
	// is started; zero otherwise.
	exitedAt, left time.Time
	// askedFor is how long nodes were asked since then.
	askedFor time.Duration
}

// run decides and does, until there is nothing left to do.
func (s *sequence) run() error {
	if err := s.prepare(); err != nil {
		return err
	}
	if err := s.settle(); err != nil {
		return err
	}
	for {
		step, err := s.decide()
		if err != nil {
			return err
		}
		switch step.Action { //nolint:exhaustive // decide does the others itself
		case Finish:
			return s.finish(step.Version)
		case RunVersion:
			err = s.runVersion(step)
		case EnterVersion:
			err = s.enterVersion(step.Version)
		case MigrateAgain:
			err = s.migrateAgain(step.Version)
		}
		if err != nil {
			return err
		}
	}
}

// decide gives the next step, and asks for the height of the state where that needs it.
func (s *sequence) decide() (Step, error) {
	for {
		if s.stopRequested() {
			return Step{}, errStopped
		}
		step := Next(s.Plan, s.record.stamp, s.durable)
		if step.Version >= 0 {
			s.at = &step.Version
		}
		switch step.Action {
		case AskVersion:
			if err := s.ask(step.Version); err != nil {
				return Step{}, err
			}
		case Refuse:
			return Step{}, s.refusal(step)
		default:
			s.Log.Debug("next step", slog.String("action", string(step.Action)), slog.Int("version", step.Version))
			return step, nil
		}
	}
}

// prepare finds out whose the state is, and that the plan can be run. It writes nothing.
func (s *sequence) prepare() error {
	found, err := s.Store.Load()
	if err != nil {
		return unreadable(s.Plan, err, found)
	}
	s.storage = found.Storage
	s.tellFound(found)
	at, err := reconcile(s.Plan, found, s.digestOf)
	if err != nil {
		return err
	}
	for _, n := range at.notes {
		s.Log.Log(context.Background(), n.level, n.message, slog.String("detail", n.detail))
	}
	now := at.record.stamp.VersionIndex
	s.at = &now
	s.record = at.record
	if found.State == checkpoint.StateNone {
		s.durable = Durable{Knowledge: NoState}
	}
	s.publish()
	s.keep = at.keep
	return s.checkAll(now)
}

// settle writes the record as it is now, before the first process is started.
func (s *sequence) settle() error {
	if s.keep {
		if err := s.keepCheckpoint(); err != nil {
			return err
		}
	}
	// Both files are written even where they are right: a kill may have come between the rename and the fsync of the
	// directory, and a power cut would bring the old stamp back. It also proves that the volume can be written before
	// anything depends on it.
	return s.commitAndWait(s.record, untouched)
}

// tellFound logs what is on disk.
func (s *sequence) tellFound(found checkpoint.Found) {
	if c := found.Checkpoint; c != nil {
		s.Log.Info("checkpoint found", slog.Int("version", c.VersionIndex), slog.String("phase", string(c.Phase)), slog.String("binary", c.BinaryPath))
	} else {
		s.Log.Info("no checkpoint found")
	}
	if stamp := found.Stamp; stamp != nil {
		s.Log.Info("stamp found", slog.Int("version", stamp.VersionIndex), slog.String("name", stamp.Name), slog.String("migration", string(stamp.Migration)))
	}
}

func (s *sequence) digestOf(i int) (string, error) {
	return s.Files.Digest(s.Plan.Versions[i].Binary) //nolint:wrapcheck // it names the file
}

func (s *sequence) keepCheckpoint() error {
	kept, err := s.Store.KeepCheckpoint()
	if err != nil {
		return s.notWritable(err, untouched)
	}
	if kept != "" {
		s.Log.Info("old checkpoint kept", slog.String("file", kept))
	}
	return nil
}

// checkAll checks the files of version now and of all later ones.
func (s *sequence) checkAll(now int) error {
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
		return unusable(problems)
	}
	if s.stopRequested() {
		return errStopped
	}
	return s.verifyFirst(now)
}

// sameBinary gives the digest of the binary of version i, which is about to be started. Within one run it must stay the
// file that was started first: another one would make blocks that nobody expects of it.
func (s *sequence) sameBinary(i int) (string, error) {
	v := s.Plan.Versions[i]
	sum, err := s.Files.Digest(v.Binary)
	if err != nil {
		return "", mismatch(FilesInvalid, "%s cannot be started", s.Plan.Label(i)).because(err).
			safe("it was not started").next("make its binary readable and start again")
	}
	first, started := s.first[v.Binary]
	switch {
	case started && first != sum:
		return "", failf(CodeEarlyExit, "the binary of %s, %s, is not the file any more that was started first in this run: its sha256 was %s and is %s", s.Plan.Label(i), v.Binary, first, sum).
			safe("it was not started again and the record is right").next("if the new file is meant, start again: a patch release takes effect with a new start")
	case !started:
		if err := s.patchRelease(i, sum); err != nil {
			return "", err
		}
		s.first[v.Binary] = sum
	}
	return sum, nil
}

// sameStorage makes sure that a program that is started now with the config of version i finds the state whose stamp this
// run looks at: a config, or a symbolic link, may lead elsewhere by now.
func (s *sequence) sameStorage(i int) error {
	dir, err := s.Files.Storage(s.Plan.Versions[i].Config)
	switch {
	case err != nil:
		return mismatch(FilesInvalid, "%s cannot be started", s.Plan.Label(i)).because(err).safe("it was not started").next("fix its config and start again")
	case dir != s.storage && !s.Files.SameDirectory(dir, s.storage):
		return mismatch(OtherState, "the config of %s leads to the state in %s now, and this run began with the one in %s", s.Plan.Label(i), orNone(dir), orNone(s.storage)).
			safe("nothing was started on it").next("let storage.path, and symbolic links in it, lead to the state that is meant, and start again: its stamp counts")
	}
	return nil
}

// orNone words a directory that may not be known.
func orNone(dir string) string {
	if dir == "" {
		return "not set"
	}
	return dir
}

// patchRelease looks at the first start of version i in this run whether its binary is the one that ran last. Another one is
// a patch release and only a warning, unless the one that ran last is now that of another version: then the two were mixed
// up, and the wrong one would destroy the state.
func (s *sequence) patchRelease(i int, sum string) error {
	was := s.record.stamp.BinarySHA256
	if i != s.record.stamp.VersionIndex || was == "" || was == sum {
		return nil
	}
	for k, other := range s.Plan.Versions {
		is, err := s.digestOf(k)
		if k == i || err != nil || other.Binary == s.Plan.Versions[i].Binary || is != was && is != sum {
			continue
		}
		what := fmt.Sprintf("the binary that ran last as %s, with sha256 %s, is now %s, that of %s", s.Plan.Label(i), was, other.Binary, s.Plan.Label(k))
		if is == sum {
			what = fmt.Sprintf("the binary of %s was replaced, and is now the same as %s, that of %s", s.Plan.Label(i), other.Binary, s.Plan.Label(k))
		}
		return mismatch(BinaryMisplaced, "%s", what).safe(untouched).
			next("give each version its own binary again: the node of another version would destroy the state").
			remedy(Remedy{When: "the two are meant to be like that, as with launcher scripts", Version: i, Migrated: s.record.stamp.Migration == checkpoint.MigrationCompleted})
	}
	s.Log.Warn("binary changed", slog.Int("version", i), slog.String("binary", s.Plan.Versions[i].Binary), slog.String("was", was), slog.String("is", sum))
	return nil
}

// finish ends a complete sequence.
func (s *sequence) finish(i int) error {
	if err := s.commit(s.record.completed(s.Plan, s.proof()), fmt.Sprintf("%s is complete and the state is safe", s.Plan.Label(i))); err != nil {
		return err
	}
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

// proof is how it is known that the stamped version is complete.
func (s *sequence) proof() checkpoint.Proof {
	switch {
	case s.durable.Knowledge == Asked:
		return checkpoint.ProofDurable
	case s.bySlack:
		return checkpoint.ProofSlack
	}
	return checkpoint.ProofWord
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
