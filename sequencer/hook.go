package sequencer

import (
	"fmt"
	"slices"
	"strconv"
)

// runHook runs the hook before version i. It changes nothing of ours but that it is done, and may have taken long: stamp
// and height are then looked at anew.
func (s *sequence) runHook(i int) error {
	v := s.Plan.Versions[i]
	if err := s.lookAgain(i - 1); err != nil || s.durable.Knowledge == NoState {
		return err
	}
	// Whatever the hook does, the version before is complete, and people look for that if the hook fails.
	if err := s.commit(s.record.completed(s.Plan, s.proof()), untouched); err != nil {
		return err
	}
	h := &job{child: child{s: s, index: i}, hook: true}
	s.at = &i
	err := h.run(Command{Path: v.Before[0], Args: v.Before[1:], Env: slices.Concat(v.Env, s.hookEnv(i))})
	if err != nil {
		return err
	}
	if exit := h.process.Exit(); exit.Status() != 0 {
		return s.hookFailed(i, exit, &h.stderr)
	}
	if err := s.lookAgain(i - 1); err != nil || s.durable.Knowledge == NoState {
		return err
	}
	// If it has changed the height, the node of the version before runs again, and the hook before this one.
	if s.durable.Knowledge == Asked {
		s.durable = Durable{}
	}
	return s.commit(s.record.hookDone(s.Plan), fmt.Sprintf("the hook before %s is done, and nothing of that version was started", s.Plan.Label(i)))
}

// hookEnv is what the hook before version i is told.
func (s *sequence) hookEnv(i int) []string {
	return []string{
		"ENTRYPOINT_FROM_VERSION=" + s.Plan.Versions[i-1].Name,
		"ENTRYPOINT_TO_VERSION=" + s.Plan.Versions[i].Name,
		"ENTRYPOINT_HEIGHT=" + strconv.FormatUint(s.Plan.Versions[i-1].Stop, 10),
		"ENTRYPOINT_STORAGE_PATH=" + s.storage,
		"ENTRYPOINT_CHECKPOINT=" + s.Checkpoint,
	}
}

// hookFailed is the end for a hook that did not succeed.
func (s *sequence) hookFailed(i int, exit Exit, stderr *tail) error {
	next := "read what it wrote to stderr and start again: the next start runs it again"
	if exit.OutOfMemory {
		next = moreMemory + "; then start again: the next start runs it again"
	}
	return failf(exit.Status(), "the hook before %s %s", s.Plan.Label(i), exit).wrote(stderr).
		safe(fmt.Sprintf("%s is complete at height %d, and nothing of %s was started", s.Plan.Label(i-1), s.Plan.Versions[i-1].Stop, s.Plan.Label(i))).next("%s", next)
}
