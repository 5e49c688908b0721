package sequencer

import (
	"context"
	"log/slog"
	"slices"
)

// verifyFirst compares the files of version now, which is about to run, and what all versions share with the manifest.
// Later versions can wait until its node runs.
func (s *sequence) verifyFirst(now int) error {
	problems := append(s.verify(WholePlan), s.verify(now)...)
	if s.stopRequested() {
		return errStopped
	}
	if len(problems) == 0 {
		return nil
	}
	return mismatch(FilesInvalid, "%s does not match the manifest", s.Plan.Label(now)).because(problems).
		safe("nothing was started").next("fix its files and start again")
}

// verify compares the files of version i, or those that all versions share, at once, and gives the errors. A stop signal
// cuts it short, without any: nothing is started after that, and the next start compares again.
func (s *sequence) verify(i int) Problems {
	if s.Verify == nil || s.stopRequested() {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan []Finding, 1) // the disk may hang, and a stop shall not
	go func() { done <- s.Verify(ctx, i, false) }()
	for {
		select {
		case found := <-done:
			return s.verified(i, found)
		case sig := <-s.Signals.Signals():
			if s.note(sig); s.stopping {
				return nil
			}
		}
	}
}

// verified makes what a comparison has found part of the state, beside what the last preflight had found, and gives the
// errors.
func (s *sequence) verified(i int, found []Finding) Problems {
	if len(found) == 0 {
		return nil
	}
	all := slices.Clone(s.state.Preflight[i].Findings)
	for _, f := range found {
		if !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	s.preflightDone(i, all)
	var serious Problems
	for _, f := range found {
		if f.Severity == SeverityError {
			serious = append(serious, f.Text(s.Plan))
		}
	}
	return serious
}

// readAhead has the next version's binary, and where files are compared those of all later versions, read in the
// background, now that the node has its start-up behind it. A file that is not what it is to be is known long before its
// height; and at the hand-over the digests are known and the pages are in memory.
func (n *nodeRun) readAhead() {
	last, log := n.s.Plan.Last(), n.s.Log
	if n.index == last {
		return
	}
	later := make(chan preflights, last-n.index) // the node may have ended by then
	n.later = later
	files, versions, verified, examine, index := n.s.Files, n.s.Plan.Versions, n.s.Verify != nil, n.examine, n.index
	go func() {
		for i := index + 1; i <= last; i++ {
			if verified {
				later <- preflights{i: examine(i)}
			}
			if i > index+1 {
				continue
			}
			if _, err := files.Digest(versions[i].Binary); err != nil {
				log.Warn("next version unreadable", slog.Int("version", i), slog.String("error", err.Error()))
			}
		}
	}()
}
