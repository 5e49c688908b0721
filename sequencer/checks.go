package sequencer

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"

	"rollup-entrypoint/sequencer/checkpoint"
)

// checkAll inspects all versions that may run before anything is started, and compares the files of version now, which is about to run,
// with the manifest. Those of later versions are compared while its node runs. What is wrong with an earlier version is
// only logged.
func (s *sequence) checkAll(now int, depth Depth) error {
	var problems Problems
	for i := WholePlan; i <= s.Plan.End(); i++ {
		if i != WholePlan && i < now {
			for _, f := range s.look(context.Background(), i, FilesOnly) {
				s.Log.Warn("a version that is complete has a problem", slog.Int("version", i), slog.String("detail", f.Text(s.Plan)))
			}
			continue
		}
		found := s.look(context.Background(), i, depth)
		if depth != FilesOnly {
			s.preflightDone(i, found)
		}
		problems = append(problems, s.errorsFrom(now, found)...)
	}
	if s.stopRequested() {
		return errStopped
	}
	if len(problems) > 0 {
		return unusable(problems)
	}
	problems = append(s.compare(WholePlan), s.compare(now)...)
	if s.stopRequested() {
		return errStopped
	}
	if len(problems) > 0 {
		return mismatch(FilesInvalid, "%s does not match the manifest", s.Plan.Label(now)).because(problems).
			safe("nothing was started").next("fix its files and start again")
	}
	return nil
}

// look inspects version i, or what all versions share for WholePlan.
func (s *sequence) look(ctx context.Context, i int, depth Depth) []Finding {
	if i == WholePlan {
		return s.Inspection.Shared(ctx, depth)
	}
	return s.Inspection.Version(ctx, i, depth)
}

// errorsFrom gives the errors among what was found that keep version i, or a later one, from running.
func (s *sequence) errorsFrom(i int, found []Finding) (serious Problems) {
	for _, f := range found {
		if f.Severity == SeverityError && (f.Version == WholePlan || f.Version >= i) {
			serious = append(serious, f.Text(s.Plan))
		}
	}
	return serious
}

// compare looks at the files of version i, or at those that all versions share, right before a start, compares them with
// the manifest, and gives the errors. A stop signal cuts it short, without any: nothing is started after that, and the next
// start compares again.
func (s *sequence) compare(i int) Problems {
	if s.stopRequested() {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan []Finding, 1) // the disk may hang, and a stop must not
	go func() { done <- s.look(ctx, i, Manifest) }()
	for {
		select {
		case found := <-done:
			s.alsoFound(i, found)
			return s.errorsFrom(i, found)
		case sig := <-s.Signals.Signals():
			if s.note(sig); s.stopping {
				return nil
			}
		}
	}
}

// alsoFound adds what a comparison has found to what is known of version i.
func (s *sequence) alsoFound(i int, found []Finding) {
	if len(found) == 0 {
		return
	}
	known := s.state.Preflight[i].Findings
	fresh := slices.DeleteFunc(slices.Clone(found), func(f Finding) bool { return slices.Contains(known, f) })
	s.preflightDone(i, slices.Concat(known, fresh))
}

// sameBinary gives the digest of the binary of version i, which is about to be started. Within one run it must stay the
// file that was started first: another one would make blocks that nobody expects of it.
func (s *sequence) sameBinary(i int) (string, error) {
	v := s.Plan.Versions[i]
	sum, err := s.Inspection.Digest(i)
	if err != nil {
		return "", mismatch(FilesInvalid, "%s cannot be started", s.Plan.Label(i)).because(err).
			safe("it was not started").next("make its binary readable and start again")
	}
	if first, started := s.first[v.Binary]; started && first != sum {
		return "", failf(CodeEarlyExit, "the binary of %s, %s, was replaced during this run: its sha256 was %s and is %s", s.Plan.Label(i), v.Binary, first, sum).
			safe("it was not started again; stamp and checkpoint are correct").next("if you replaced it on purpose, start again; otherwise put the old file back first")
	}
	if err := s.patchRelease(i, sum); err != nil {
		return "", err
	}
	s.first[v.Binary] = sum
	return sum, nil
}

// sameStorage makes sure that a program that is started now with the config of version i finds the state whose stamp this
// run looks at: the config, or a symbolic link, may lead elsewhere by now.
func (s *sequence) sameStorage(i int) error {
	dir, same, err := s.Inspection.Storage(i, s.storage)
	switch {
	case err != nil:
		return mismatch(FilesInvalid, "%s cannot be started", s.Plan.Label(i)).because(err).safe("it was not started").next("fix its node config and start again")
	case !same:
		return mismatch(OtherState, "the node config of %s leads to the state in %s now, and this run began with the one in %s",
			s.Plan.Label(i), cmp.Or(dir, "no directory"), cmp.Or(s.storage, "no directory")).
			safe("nothing was started on it").next("make storage.path, and the symbolic links in it, lead to the right state, and start again: the stamp there decides")
	}
	return nil
}

// patchRelease looks, before a start of version i, whether its binary is the one that ran last on this state. Another one
// is a patch release and only a warning, unless the one that ran last is now that of another version: then the two were
// mixed up, and the wrong one would destroy the state.
func (s *sequence) patchRelease(i int, sum string) error {
	was := s.record.stamp.BinarySHA256
	if i != s.record.stamp.VersionIndex || was == "" || was == sum {
		return nil
	}
	for k, other := range s.Plan.Versions {
		is, err := s.Inspection.Digest(k)
		if k == i || err != nil || other.Binary == s.Plan.Versions[i].Binary || is != was && is != sum {
			continue
		}
		what := fmt.Sprintf("the binary that ran last as %s, with sha256 %s, is now %s, that of %s", s.Plan.Label(i), was, other.Binary, s.Plan.Label(k))
		if is == sum {
			what = fmt.Sprintf("the binary of %s was replaced, and is now the same as %s, that of %s", s.Plan.Label(i), other.Binary, s.Plan.Label(k))
		}
		return mismatch(BinaryMisplaced, "%s", what).safe(untouched).
			next("give each version its own binary again: the node of another version would destroy the state").
			remedy(Remedy{When: "you want the two to be the same, as with launcher scripts", Version: i, Migrated: s.record.stamp.Migration == checkpoint.MigrationCompleted})
	}
	s.Log.Warn("binary changed", slog.Int("version", i), slog.String("binary", s.Plan.Versions[i].Binary), slog.String("was", was), slog.String("is", sum))
	const safe = "the new binary was not started"
	if s.pointIsOfStamp() { // the binary before may have damaged the state: the undo point from before that one is worth more
		return s.commit(s.record.patched(s.Plan, sum, s.undo.point.ID), safe)
	}
	if err := s.copyBefore(i, sum); err != nil {
		return err
	}
	return s.commit(s.record.patched(s.Plan, sum, s.undo.id()), safe)
}
