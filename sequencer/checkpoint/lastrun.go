package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/durable"
	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/internal/regularfile"
	"rollup-entrypoint/internal/strictjson"
)

// lastRunSuffix is what the name of the record of the last run adds to that of the checkpoint.
const lastRunSuffix = ".last-run"

// LastRunPath is that record for the checkpoint at path.
func LastRunPath(checkpoint string) string { return ResolveLinks(checkpoint) + lastRunSuffix }

const (
	// textLimit is how many bytes of a run's last words are kept, and sentenceLimit how many of each of their parts.
	textLimit, sentenceLimit = 4096, 1000
	// shortText is how many are kept of the longest parts if the volume is full.
	shortText = 800
	// commandLimit is how many commands are kept: there may be one for each version.
	commandLimit = 8
)

// LastRun is the record of a run: the one that has the locks now, or the last one. It is history for people, beside the
// checkpoint, where it outlives the container and its log. No decision depends on it.
type LastRun struct {
	BeganAt time.Time `json:"began_at"`
	// Entrypoint is the version of this program.
	Entrypoint string `json:"entrypoint"`
	Pid        int    `json:"pid"`
	Host       string `json:"host"`
	// BootID is that of the kernel, empty if it is not known. It changes with each start of the machine.
	BootID string `json:"boot_id,omitempty"`
	// Refused: the run ended before it had the locks.
	Refused bool `json:"refused,omitempty"`
	// EndedAt and ExitCode are nil while the run lasts, and if it ended without a word.
	EndedAt  *time.Time `json:"ended_at,omitempty"`
	ExitCode *int       `json:"exit_code,omitempty"`
	// Failure is why it ended, nil for exit code 0.
	Failure *LastWords `json:"failure,omitempty"`
	// Unended is what the next run knew about a run that ended without a word.
	Unended string `json:"unended,omitempty"`
	// Previous is the last run before that had the locks, without its own.
	Previous *LastRun `json:"previous,omitempty"`
}

// LastWords is why a run failed, in parts, and as the text of its termination message.
type LastWords struct {
	Cause    string        `json:"cause,omitempty"`
	What     string        `json:"what"`
	Error    string        `json:"error,omitempty"`
	Safe     string        `json:"safe,omitempty"`
	Next     string        `json:"next,omitempty"`
	Commands []LastCommand `json:"commands,omitempty"`
	Text     string        `json:"text"`
}

// LastCommand is a command that may help, and what must be true for it.
type LastCommand struct {
	When    string `json:"when,omitempty"`
	Command string `json:"command"`
}

// NewRun is the record of a run of this process that began then.
func NewRun(entrypoint string, began time.Time) LastRun {
	r := LastRun{BeganAt: began.UTC(), Entrypoint: entrypoint, Pid: os.Getpid(), BootID: thisSystem().BootID}
	r.Host, _ = os.Hostname()
	return r
}

// End records how the run ended; words is nil for exit code 0.
func (r *LastRun) End(code int, words *LastWords) {
	now := time.Now().UTC()
	r.EndedAt, r.ExitCode, r.Failure = &now, &code, words
}

var (
	wordsShape = strictjson.Shape{
		Name: "failure", Required: []string{"what", "text"}, Optional: []string{"cause", "error", "safe", "next", "commands"},
		Lists: []strictjson.Shape{{Name: "commands", Required: []string{"command"}, Optional: []string{"when"}}},
	}
	runKeys     = []string{"began_at", "entrypoint", "pid", "host"}
	runOptional = []string{"boot_id", "refused", "ended_at", "exit_code", "failure", "unended"}

	lastRunShape = strictjson.Shape{
		Name: "record of a run", Required: runKeys, Optional: append([]string{"previous"}, runOptional...),
		Within: []strictjson.Shape{wordsShape, {Name: "previous", Required: runKeys, Optional: runOptional, Within: []strictjson.Shape{wordsShape}}},
	}
)

// EncodeLastRun gives the text of a record: indented JSON, for people to read. Whatever is in it, the text is short
// enough to be read back.
func EncodeLastRun(r LastRun) ([]byte, error) {
	r = r.clipped()
	if r.Previous != nil {
		before := r.Previous.clipped()
		before.Previous = nil
		r.Previous = &before
	}
	text, err := encode(r)
	if err != nil {
		return nil, fmt.Errorf("cannot write the record of this run: %w", err)
	}
	return text, nil
}

// clipped bounds each text. A command is never cut: what is left of it could be another one.
func (r LastRun) clipped() LastRun {
	for _, text := range []*string{&r.Entrypoint, &r.Host, &r.BootID, &r.Unended} {
		*text = plain.Cut(*text, sentenceLimit)
	}
	if r.Failure == nil {
		return r
	}
	f := *r.Failure
	for _, text := range []*string{&f.Cause, &f.What, &f.Error, &f.Safe, &f.Next} {
		*text = plain.Cut(*text, sentenceLimit)
	}
	f.Text = plain.Cut(f.Text, textLimit)
	f.Commands = nil
	for _, c := range r.Failure.Commands {
		if len(f.Commands) < commandLimit && len(c.Command) <= sentenceLimit {
			f.Commands = append(f.Commands, LastCommand{plain.Cut(c.When, sentenceLimit), c.Command})
		}
	}
	r.Failure = &f
	return r
}

// ParseLastRun reads the text of a record, as strictly as Parse reads a checkpoint.
func ParseLastRun(text []byte) (LastRun, error) {
	var r LastRun
	if err := parse(text, lastRunShape, &r); err != nil {
		return LastRun{}, err
	}
	return r, nil
}

// check finds values that no entrypoint writes.
func (r *LastRun) check() error {
	switch {
	case (r.EndedAt == nil) != (r.ExitCode == nil):
		return errors.New("ended_at and exit_code go together, and one is missing")
	case r.ExitCode != nil && (*r.ExitCode < 0 || *r.ExitCode > 255):
		return fmt.Errorf("exit_code is %d, want 0 to 255", *r.ExitCode)
	case r.Previous != nil:
		return r.Previous.check()
	}
	return nil
}

// ReadLastRun reads the record beside the checkpoint at path; nil if there is none.
func ReadLastRun(path string) (*LastRun, error) { return locate(path, "").LastRun() }

// LastRun reads the record of the last run; nil if there is none, or no checkpoint file. A symbolic link is none of
// ours: what it leads to is not read.
func (s *Store) LastRun() (*LastRun, error) {
	if s.path == "" {
		return nil, nil
	}
	name := s.path + lastRunSuffix
	file, err := regularfile.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var r LastRun
	if err == nil {
		defer file.Close()
		var text []byte
		if text, err = io.ReadAll(io.LimitReader(file, limit+1)); err == nil {
			r, err = ParseLastRun(text)
		}
	}
	if err != nil {
		return nil, &UnreadableError{Path: name, Err: unreadable(err)}
	}
	return &r, nil
}

// RunBefore is the last run that had the locks, before this one; nil if none is known.
func (s *Store) RunBefore() (*LastRun, error) {
	r, err := s.LastRun()
	if err == nil && r != nil && r.Refused {
		r = r.Previous
	}
	return r, err
}

// SaveLastRun replaces the record of the last run. That of a run that has ended is durable when it returns. That of its
// beginning survives a kill, and a power cut after SyncLastRun: a start need not wait for it. It is refused if the lock
// is lost: another run may have its record there now. Without a checkpoint file nothing is done.
func (s *Store) SaveLastRun(r LastRun) error {
	if s.path == "" {
		return nil
	}
	s.runMu.Lock() // an earlier call may still wait for the disk, and must not come after this one
	defer s.runMu.Unlock()
	if err := stillAt(s.lock, s.lock.Name(), os.Lstat); err != nil {
		return &LockLostError{Path: s.lock.Name(), Err: err}
	}
	err := s.writeLastRun(r)
	if full := errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT); full && r.EndedAt != nil {
		// Many a run ends because the volume is full. What its record took at the beginning is enough for a short one.
		if err = os.Remove(s.path + lastRunSuffix); err == nil {
			err = s.writeLastRun(r.shortened())
		}
	}
	return err
}

// SyncLastRun makes the record durable, as far as that can be done.
func (s *Store) SyncLastRun() {
	file, err := regularfile.OpenFile(s.path+lastRunSuffix, os.O_RDONLY|unix.O_NOFOLLOW)
	if err != nil {
		return
	}
	defer file.Close()
	if file.Sync() == nil {
		_ = durable.SyncDir(filepath.Dir(s.path))
	}
}

// shortened leaves out what most readers can do without.
func (r LastRun) shortened() LastRun {
	r.Previous = nil
	if r.Failure != nil {
		f := *r.Failure
		f.Error, f.Commands, f.Text = plain.Cut(f.Error, shortText), nil, plain.Cut(f.Text, shortText)
		r.Failure = &f
	}
	return r
}

// writeLastRun gives the record the rights of the checkpoint. Whatever has its name is replaced and never written: it may
// be a link to another file.
func (s *Store) writeLastRun(r LastRun) error {
	text, err := EncodeLastRun(r)
	if err != nil {
		return err
	}
	give := inheritRights
	if like, err := os.Lstat(s.path); err == nil && like.Mode().IsRegular() {
		give = rightsOf(like).give
	}
	write := durable.Replace
	if r.EndedAt == nil {
		write = durable.ReplaceSoon
	}
	return write(s.path+lastRunSuffix, text, give)
}

// RecordRefused records a run that ended before it had the locks, beside the checkpoint at path. It does nothing if there
// is no lock file, as in a directory that was named by mistake, or if another process has the lock: that one has its own
// record there. The lock is shared for that moment, so an entrypoint that starts just then waits.
func RecordRefused(path string, r LastRun) error {
	s := locate(path, "")
	lock, err := openLock(s.path+lockSuffix, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if held, err := flock(lock, unix.LOCK_SH); held != nil || err != nil {
		return err
	}
	r.Refused = true
	r.Previous, _ = s.RunBefore() // what cannot be read is replaced
	return s.writeLastRun(r)
}
