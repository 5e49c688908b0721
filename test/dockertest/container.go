package dockertest

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pollEvery is the pause between two questions to the engine.
const pollEvery = 100 * time.Millisecond

// Container is a container that belongs to a test.
type Container struct {
	t    testing.TB
	Name string
	// seen is the number of lines of the log that Forget has skipped.
	seen int
}

// Run starts a container in the background with 'docker run -d ARGS'. The args are flags, the image and its arguments.
func Run(t testing.TB, args ...string) *Container {
	t.Helper()
	return start(t, append([]string{"run", "-d"}, args...)...)
}

// Create makes a container with 'docker create ARGS', for a test that calls Start, or starts it attached.
func Create(t testing.TB, args ...string) *Container {
	t.Helper()
	return start(t, append([]string{"create"}, args...)...)
}

// start runs the docker command that makes the container; its flags begin after its first word.
func start(t testing.TB, args ...string) *Container {
	t.Helper()
	c := &Container{t: t, Name: Name()}
	// Before the start: a container that could not be started exists too.
	t.Cleanup(c.remove)
	Docker(t, append([]string{args[0], "--name", c.Name}, args[1:]...)...)
	return c
}

func (c *Container) remove() {
	if c.t.Failed() {
		c.t.Logf("container %s: %s\n%s", c.Name, TryDocker(c.t, "inspect", "-f", "{{json .State}}", c.Name).Both, tail(c.Logs(), 100))
	}
	cleanUp(c.t, "rm", "-f", "-v", c.Name)
}

// Once runs 'docker run --rm ARGS' to its end and returns the result.
func Once(t testing.TB, args ...string) Result {
	t.Helper()
	name := Name()
	// --rm does not remove it if the docker command dies first.
	t.Cleanup(func() { TryDocker(t, "rm", "-f", "-v", name) })
	return TryDocker(t, append([]string{"run", "--rm", "--name", name}, args...)...)
}

// Event is a line of the entrypoint's log as JSON, by its keys. Numbers are float64.
type Event map[string]any

// Has reports whether the event has the message msg, and each key the value that follows it. Values are compared as
// they are printed, so that 1 is "1".
func (e Event) Has(msg string, keysAndValues ...any) bool {
	if e["msg"] != msg {
		return false
	}
	for i := 0; i+1 < len(keysAndValues); i += 2 {
		have, found := e[fmt.Sprint(keysAndValues[i])]
		if number, isNumber := have.(float64); isNumber {
			have = strconv.FormatFloat(number, 'f', -1, 64)
		}
		if !found || fmt.Sprint(have) != fmt.Sprint(keysAndValues[i+1]) {
			return false
		}
	}
	return true
}

// WaitEvent waits until the entrypoint has logged msg with these keys and values, and returns the event. Events before
// the call (see Forget) and after a restart of the container count too. The test fails if the container ends without
// one.
func (c *Container) WaitEvent(msg string, keysAndValues ...any) Event {
	c.t.Helper()
	var event Event
	c.WaitLine(fmt.Sprintf("the event %q with %v", msg, keysAndValues), func(line string) bool {
		event = nil
		return json.Unmarshal([]byte(line), &event) == nil && event.Has(msg, keysAndValues...)
	})
	return event
}

// WaitLine waits for a line on standard output or standard error for which match is true; what describes the line.
func (c *Container) WaitLine(what string, match func(line string) bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Deadline)
	defer cancel()
	for c.t.Context().Err() == nil {
		// Asked before the log is read: if the container ends in between, the next round reads the rest.
		over := c.State().over()
		if c.follow(ctx, match) {
			return
		}
		require.NoError(c.t, ctx.Err(), "waited for %s in vain", what)
		require.False(c.t, over, "the container has ended without %s", what)
		pause(ctx)
	}
}

// follow reads the log until a line matches or the container stops.
func (c *Container) follow(ctx context.Context, match func(string) bool) bool {
	c.t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", "logs", "-f", c.Name)
	pipe, err := cmd.StdoutPipe()
	require.NoError(c.t, err)
	// One pipe for both outputs keeps the order of the lines.
	cmd.Stderr = cmd.Stdout
	require.NoError(c.t, cmd.Start())
	// In this order: Wait would wait for a command that is still running.
	defer cmd.Wait() //nolint:errcheck // it was killed, or the container is gone; the lines are what counts
	defer cancel()
	lines := bufio.NewReader(pipe)
	for n := 0; ; n++ {
		line, err := lines.ReadString('\n')
		if n >= c.seen && match(strings.TrimSuffix(line, "\n")) {
			return true
		}
		if err != nil {
			return false
		}
	}
}

// Forget makes later waits look only at what is logged from now on.
func (c *Container) Forget() { c.seen = strings.Count(c.Logs(), "\n") }

// Logs returns what the container has written so far, to standard output and standard error, in order.
func (c *Container) Logs() string { return TryDocker(c.t, "logs", c.Name).Both }

// Events returns the entrypoint's events so far that have this message.
func (c *Container) Events(msg string) []Event {
	var events []Event
	for line := range strings.Lines(c.Logs()) {
		var event Event
		if json.Unmarshal([]byte(line), &event) == nil && event.Has(msg) {
			events = append(events, event)
		}
	}
	return events
}

// State has the fields of 'docker inspect' that tests use.
type State struct {
	// Status is created, running, paused, restarting, removing, exited or dead.
	Status     string
	Running    bool
	Restarting bool
	OOMKilled  bool
	Pid        int
	ExitCode   int
	Error      string
	Health     *struct {
		Status        string
		FailingStreak int
		Log           []struct {
			ExitCode int
			Output   string
		}
	}
	// Restarts is how often the restart policy has made the engine start the container again.
	Restarts int
}

// over reports whether the container has ended and the engine does not start it again.
func (s State) over() bool { return s.Status == "exited" || s.Status == "dead" }

// State returns the state of the container.
func (c *Container) State() State {
	c.t.Helper()
	var state []struct {
		State        State
		RestartCount int
	}
	require.NoError(c.t, json.Unmarshal([]byte(Docker(c.t, "container", "inspect", c.Name)), &state))
	state[0].State.Restarts = state[0].RestartCount
	return state[0].State
}

// WaitState waits until reached is true for the container's state, and returns it; what describes that state.
func (c *Container) WaitState(what string, reached func(State) bool) State {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Deadline)
	defer cancel()
	for {
		state := c.State()
		if reached(state) {
			return state
		}
		require.NoError(c.t, ctx.Err(), "waited for %s in vain: %+v", what, state)
		pause(ctx)
	}
}

// WaitHealth waits until Docker reports the container as starting, healthy or unhealthy.
func (c *Container) WaitHealth(status string) {
	c.t.Helper()
	c.WaitState("health "+status, func(s State) bool { return s.Health != nil && s.Health.Status == status })
}

// WaitExit waits until the container has ended and returns its exit code. It is not for a container that restarts.
func (c *Container) WaitExit() int {
	c.t.Helper()
	code, err := strconv.Atoi(Docker(c.t, "wait", c.Name))
	require.NoError(c.t, err)
	return code
}

// Start starts a container that was created or has ended.
func (c *Container) Start() { c.t.Helper(); Docker(c.t, "start", c.Name) }

// Stop is 'docker stop': the stop signal, then SIGKILL after a time that no test should reach, unless flags set
// another.
func (c *Container) Stop(flags ...string) {
	c.t.Helper()
	if len(flags) == 0 {
		flags = []string{"-t", "60"}
	}
	Docker(c.t, append(append([]string{"stop"}, flags...), c.Name)...)
}

// Kill is 'docker kill': it sends process 1 a signal, given by name.
func (c *Container) Kill(signal string) { c.t.Helper(); Docker(c.t, "kill", "-s", signal, c.Name) }

// Exec runs a command in the container with 'docker exec'.
func (c *Container) Exec(argv ...string) Result {
	c.t.Helper()
	return TryDocker(c.t, append([]string{"exec", c.Name}, argv...)...)
}

// Address is the address on this machine of a port that Run has published (-p 127.0.0.1::PORT).
func (c *Container) Address(port string) string {
	c.t.Helper()
	address, _, _ := strings.Cut(Docker(c.t, "port", c.Name, port), "\n")
	return address
}

// ReadFile returns a file of the container, which may have ended.
func (c *Container) ReadFile(path string) string {
	c.t.Helper()
	archive := Docker(c.t, "cp", "-L", c.Name+":"+path, "-")
	text, err := firstFile(strings.NewReader(archive))
	require.NoError(c.t, err, path)
	return text
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(pollEvery):
	}
}

// tail returns the last n lines of text.
func tail(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// firstFile reads the first file of a tar archive.
func firstFile(archive io.Reader) (string, error) {
	reader := tar.NewReader(archive)
	if _, err := reader.Next(); err != nil {
		return "", fmt.Errorf("no file is in the archive: %w", err)
	}
	text, err := io.ReadAll(reader)
	return string(text), err
}
