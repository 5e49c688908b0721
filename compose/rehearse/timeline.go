package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// linesKept is how many lines of a node's log are kept for quoting.
	linesKept = 4000
	// linesQuoted is how many lines a failure quotes.
	linesQuoted = 12
	// leaderNear is how far apart a node's line that it became leader and the end of its run may be. They come from two
	// streams.
	leaderNear = 2 * time.Second
	// killedCode is the exit code after a SIGKILL.
	killedCode = 137
)

// timeline is what is known of one node in one step: its events in order of time, the heights that it reported, and its
// log. It knows nothing of Docker and HTTP.
type timeline struct {
	node    string
	events  []event
	lines   []string
	heights map[int]span
}

// span is a range of heights in blocks.
type span struct{ first, last uint64 }

func newTimeline(node string) *timeline { return &timeline{node: node, heights: map[int]span{}} }

// line takes a line of the log, and returns whether it is an event.
func (t *timeline) line(at time.Time, text string) (event, bool) {
	text = colours.ReplaceAllString(text, "")
	if len(t.lines) == linesKept {
		t.lines = slices.Delete(t.lines, 0, linesKept/4)
	}
	t.lines = append(t.lines, text)
	e, isEvent := parseLine(at, text)
	if isEvent {
		t.add(e)
	}
	return e, isEvent
}

// add inserts e by time: the log arrives later than what the rehearsal does itself.
func (t *timeline) add(e event) {
	at := len(t.events)
	for at > 0 && t.events[at-1].Time.After(e.Time) {
		at--
	}
	t.events = slices.Insert(t.events, at, e)
	if e.Version != nil && e.Height != nil && (e.Name == "height known" || e.Name == "version completed") {
		t.height(*e.Version, *e.Height)
	}
}

// height records that the node of version was at height.
func (t *timeline) height(version int, height uint64) {
	seen, known := t.heights[version]
	if !known {
		seen.first = height
	}
	t.heights[version] = span{min(seen.first, height), max(seen.last, height)}
}

// saw reports whether the event with that name was seen for version, or for any version if it is below 0.
func (t *timeline) saw(name string, version int) bool { return t.count(name, version) > 0 }

func (t *timeline) count(name string, version int) (count int) {
	for i := range t.events {
		if t.events[i].is(name, version) {
			count++
		}
	}
	return count
}

// reached reports whether the node has reported a height of version or of a later one. In a resync, a version may
// complete before its height was read.
func (t *timeline) reached(version int) bool {
	for seen := range t.heights {
		if seen >= version {
			return true
		}
	}
	return false
}

// plan gives the versions that the entrypoint has logged, oldest first.
func (t *timeline) plan() (versions []versionReport) {
	for i := range t.events {
		e := &t.events[i]
		if e.Name != "version configured" || e.Version == nil || *e.Version != len(versions) {
			continue
		}
		v := versionReport{Version: *e.Version, Name: e.VersionName, Binary: e.Binary}
		if e.StartHeight != nil {
			v.StartHeight = *e.StartHeight
		}
		if e.StopHeight != nil && *e.StopHeight != 0 {
			v.StopHeight = e.StopHeight
		}
		versions = append(versions, v)
	}
	return versions
}

// upgrades gives the upgrades that have got as far as starting the new version.
func (t *timeline) upgrades() []upgradeReport {
	all := []upgradeReport{}
	running, down := -1, time.Time{}
	open := false
	for i := range t.events {
		e := &t.events[i]
		switch e.Name {
		case "version exited", didKill, didStop:
			if down.IsZero() {
				down = e.Time
			}
		case "version started":
			if e.Version == nil {
				continue
			}
			if open = open && *e.Version == running || running >= 0 && *e.Version > running && !down.IsZero(); open && *e.Version > running {
				all = append(all, upgradeReport{From: running, To: *e.Version, At: down, HandOverSeconds: e.Time.Sub(down).Seconds()})
			}
			running = *e.Version
		case "height known":
			if open {
				last := &all[len(all)-1]
				seconds := e.Time.Sub(last.At).Seconds()
				last.DowntimeSeconds = &seconds
			}
			open, down = false, time.Time{}
		}
	}
	return all
}

// restarts gives all starts of the entrypoint but the first, each with the reason why the run before it ended.
func (t *timeline) restarts() []restartReport {
	all := []restartReport{}
	// What the rehearsal does to a container is noted before it is done, perhaps before the run that it ends has logged
	// anything. So there may be two ends before a start.
	var ends []restartReport
	first := true
	for i := range t.events {
		e := &t.events[i]
		switch {
		case e.Name == didKill:
			ends = append(ends, restartReport{Cause: "SIGKILL by the rehearsal", Expected: true})
		case e.Name == didStop:
			ends = append(ends, restartReport{Cause: "SIGTERM by the rehearsal", Expected: true})
		case e.Name == "run failed" && len(ends) == 0:
			end := restartReport{Cause: t.why(e), Expected: e.excused()}
			if t.becameLeader(e) {
				end.Cause = "the node became leader"
			}
			ends = append(ends, end)
		case e.Name == endedMutely && len(ends) == 0:
			ends = append(ends, restartReport{Cause: e.Error})
		case e.is("version configured", 0) && first:
			first = false
		case e.is("version configured", 0):
			if len(ends) == 0 {
				ends = append(ends, restartReport{Cause: "the container ended silently"})
			}
			ends[0].At = e.Time
			all, ends = append(all, ends[0]), ends[1:]
		}
	}
	return all
}

// why gives the reason for the end of a run, without what the error says is safe and to do next.
func (t *timeline) why(e *event) string {
	code := "unknown"
	if e.ExitCode != nil {
		code = fmt.Sprint(*e.ExitCode)
	}
	text, _, _ := strings.Cut(e.Error, "; ")
	return fmt.Sprintf("exited %s: %s", code, text)
}

func (t *timeline) becameLeader(e *event) bool {
	return e.ExitCode != nil && *e.ExitCode == 75 && slices.ContainsFunc(t.events, func(other event) bool {
		return other.Name == becameLeader && other.Time.Sub(e.Time).Abs() < leaderNear
	})
}

// excused reports whether a failed run is normal in a network. 75 is: a node exited 0 below its stop height, as one
// that became leader does, more often than it is restarted in place. The next start continues.
func (e *event) excused() bool { return e.ExitCode != nil && *e.ExitCode == 75 }

// trouble returns the first end of a run that was not requested and is not excused.
func (t *timeline) trouble() *failureReport {
	for i := range t.events {
		e := &t.events[i]
		if (e.Name == "run failed" || e.Name == endedMutely) && !e.excused() {
			return t.failure(e)
		}
	}
	return nil
}

// lastEnd gives the reason for the newest failed run, or nothing.
func (t *timeline) lastEnd() string {
	for i := len(t.events) - 1; i >= 0; i-- {
		if e := &t.events[i]; e.Name == "run failed" {
			return t.why(e)
		}
	}
	return ""
}

func (t *timeline) failure(e *event) *failureReport {
	f := &failureReport{
		Node: t.node, Version: e.Version, Height: e.Height, ExitCode: e.ExitCode, Error: e.Error, Stderr: e.Stderr,
		Log: t.tail(e.Time),
	}
	f.Sentence = t.node
	if e.Version != nil && !strings.Contains(t.why(e), fmt.Sprintf("version %d", *e.Version)) {
		f.Sentence += fmt.Sprintf(", version %d", *e.Version)
	}
	if e.Name == endedMutely {
		f.Sentence += ": " + e.Error
		return f
	}
	if e.Cause == stateDamaged {
		f.Sentence += ": its state is damaged" + t.killedBefore(e)
	}
	f.Sentence += ": " + t.why(e)
	if reason := cause(e.Stderr); reason != "" {
		f.Sentence += ": " + reason
	}
	return f
}

// damage gives the first run whose node reported a damaged state; nil if there is none.
func (t *timeline) damage() *damageReport {
	for i := range t.events {
		if e := &t.events[i]; e.Name == "run failed" && e.Cause == stateDamaged {
			return &damageReport{Node: t.node, Version: e.Version, Killed: t.killedBefore(e) != ""}
		}
	}
	return nil
}

// killedBefore says whether the container was killed before e: by the rehearsal, or by Docker or the kernel.
func (t *timeline) killedBefore(e *event) string {
	for i := range t.events {
		switch other := &t.events[i]; {
		case other == e:
			return ""
		case other.Name == didKill:
			return " after a SIGKILL by the rehearsal"
		case other.ExitCode != nil && *other.ExitCode == killedCode:
			return " after a SIGKILL"
		}
	}
	return ""
}

// tail gives the log up to the line of the event at that time or, without such a line, the end of the log.
func (t *timeline) tail(at time.Time) []string {
	end := len(t.lines)
	for i, line := range t.lines {
		if e, isEvent := parseLine(time.Time{}, line); isEvent && e.Time.Equal(at) {
			end = i + 1
		}
	}
	return append([]string{}, t.lines[max(0, end-linesQuoted):end]...)
}

// report gives everything that was seen of the node.
func (t *timeline) report() nodeReport {
	r := nodeReport{Node: t.node, Versions: []spanReport{}, Upgrades: t.upgrades(), Restarts: t.restarts()}
	for version := range t.heights {
		r.Versions = append(r.Versions, spanReport{version, t.heights[version].first, t.heights[version].last})
	}
	slices.SortFunc(r.Versions, func(a, b spanReport) int { return a.Version - b.Version })
	return r
}
