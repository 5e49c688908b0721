package sequencer

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// Hold tells whether an operator holds the sequence. Package internal/hold is the real one.
type Hold interface {
	// Held reports whether there is a hold now. before is the name of the version before which it holds; empty if it holds
	// before any version, and keeps a starting entrypoint from starting anything. A hold that cannot be read is a hold,
	// and err says what is wrong with it.
	Held() (held bool, before string, err error)
	// File is the file whose removal ends the hold, for messages.
	File() string
}

// holdPoll is how often a hold is looked at while it lasts.
const holdPoll = 250 * time.Millisecond

// waitBefore waits while an operator holds the sequence before version i, whose version before is complete. If it
// waited, it reads the record anew.
func (s *sequence) waitBefore(i int) (waited bool, err error) {
	if !s.held(s.Plan.Versions[i].Name) {
		return false, nil
	}
	// A start under this hold must know that the version is complete.
	if err := s.commit(s.record.completed(s.Plan, s.proof()), untouched); err != nil {
		return true, err
	}
	if err := s.waitHeld(s.Plan.Versions[i].Name); err != nil {
		return true, err
	}
	s.flush()
	s.durable, s.stamped, s.undo = Durable{}, false, undo{}
	if err := s.prepare(FilesOnly); err != nil {
		return true, err
	}
	return true, s.settle()
}

// prepareUnheld is prepare for a start, which a hold keeps from starting anything. States can be put in place under it,
// so what is on disk is read anew when it ends.
func (s *sequence) prepareUnheld() error {
	for {
		err := s.prepare(Programs)
		if errors.Is(err, errStopped) {
			return err
		}
		next := ""
		if err == nil {
			next = s.nextIfComplete()
		}
		if !s.held(next) {
			return err
		}
		if err != nil {
			s.Log.Warn("start would fail", slog.String("error", err.Error()))
		}
		if err := s.waitHeld(next); err != nil {
			return err
		}
		s.durable = Durable{}
	}
}

// nextIfComplete is the name of the version after the stamped one, if the stamped one is recorded as complete and its
// files were not started since; otherwise empty.
func (s *sequence) nextIfComplete() string {
	i := s.record.stamp.VersionIndex
	entry, known := s.record.checkpoint.Entry(i)
	if i == s.Plan.End() || !known || entry.CompletedAt.IsZero() || entry.StopHeight != s.Plan.Versions[i].Stop {
		return ""
	}
	return s.Plan.Versions[i+1].Name
}

// held reports whether there is a hold that keeps the version called next from starting, or, if next is empty, any.
func (s *sequence) held(next string) bool {
	if s.Hold == nil {
		return false
	}
	var held bool
	var before string
	err := s.onDisk(func() (err error) { held, before, err = s.Hold.Held(); return err }) //nolint:wrapcheck // it names the file
	if known := slices.ContainsFunc(s.Plan.Versions, func(v Version) bool { return v.Name == before }); !known && before != "" {
		before, err = "", fmt.Errorf("it holds before %q, and the plan has no such version", before)
	}
	if err != nil && held && s.state.HoldFile == "" {
		s.Log.Warn("hold unreadable", slog.String("error", err.Error()), slog.String("detail", "it holds before every version, until it is removed"))
	}
	return held && (before == "" || before == next)
}

// waitHeld waits until the hold before the version called next has ended. No process has the state open.
func (s *sequence) waitHeld(next string) error {
	s.state.HoldFile = s.Hold.File()
	s.enter(PhaseHeld)
	s.Log.Info("held", slog.String("file", s.Hold.File()), slog.String("before", next))
	for s.held(next) {
		s.pause(holdPoll)
		if s.stopping {
			return errStopped
		}
	}
	s.Log.Info("hold ended", slog.String("file", s.Hold.File()))
	s.state.HoldFile = ""
	s.enter(PhasePreparing)
	return nil
}
