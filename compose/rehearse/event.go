package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"time"
)

// What the rehearsal itself does to a container, and what only the node's own log says. They are kept together with the
// events of the entrypoint, which docs/log-events.md lists.
const (
	didKill      = "rehearsal: killed"
	didStop      = "rehearsal: stopped"
	didStart     = "rehearsal: started"
	becameLeader = "rehearsal: node became leader"
	endedMutely  = "rehearsal: container ended"
)

// stateDamaged is the cause of a run that failed because its node reported a damaged state: see docs/exit-codes.md.
const stateDamaged = "state_damaged"

// leaderText is what a replica logs when it exits 0 because it became leader.
const leaderText = "Exiting to restart as leader"

// event is a line of the entrypoint's log, or one of the names above.
type event struct {
	Time        time.Time `json:"time"`
	Name        string    `json:"msg"`
	Version     *int      `json:"version"`
	VersionName string    `json:"name"`
	Binary      string    `json:"binary"`
	Height      *uint64   `json:"height"`
	StartHeight *uint64   `json:"start_height"`
	StopHeight  *uint64   `json:"stop_height"`
	ExitCode    *int      `json:"exit_code"`
	Seconds     *float64  `json:"seconds"`
	Error       string    `json:"error"`
	Cause       string    `json:"cause"`
	Stderr      string    `json:"stderr"`
}

// is reports whether e has that name and, unless it is below 0, that version.
func (e *event) is(name string, version int) bool {
	return e.Name == name && (version < 0 || e.Version != nil && *e.Version == version)
}

// colours are the escape sequences in a node's output.
var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

// parseLine returns the event of a log line, if it is one. at is when Docker read it.
func parseLine(at time.Time, text string) (event, bool) {
	var e event
	if !strings.HasPrefix(text, "{") || json.Unmarshal([]byte(text), &e) != nil || e.Name == "" || e.Time.IsZero() {
		// Only here, because an event may quote it as the node's last words.
		return event{Time: at, Name: becameLeader}, strings.Contains(text, leaderText)
	}
	e.Stderr = colours.ReplaceAllString(e.Stderr, "")
	return e, true
}

// splitTimestamp parses a line of 'docker logs --timestamps'.
func splitTimestamp(line string) (at time.Time, text string, ok bool) {
	stamp, text, _ := strings.Cut(line, " ")
	at, err := time.Parse(time.RFC3339Nano, stamp)
	return at, text, err == nil
}

// cause picks the line of a program's stderr that says why it ended.
func cause(stderr string) string {
	var last string
	stderr = colours.ReplaceAllString(stderr, "")
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		if _, text, found := strings.Cut(line, " failed: "); found {
			return text
		}
		if text, found := strings.CutPrefix(line, "Error: "); found {
			return text
		}
		if line != "" && !strings.HasPrefix(line, "note:") {
			last = line
		}
	}
	return last
}
