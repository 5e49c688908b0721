// Package dockertest runs containers on a real Docker engine for tests, always with the docker command, as users do.
//
// The contract: a package's TestMain calls Main, so that its tests run only if DOCKER_TESTS is set, as 'make
// docker-test' does. A missing engine then fails them if CI=true, and skips them otherwise. Every docker command has a
// deadline. What a test makes here (containers, volumes, networks, images of its own) has a unique name and is removed
// when the test ends; a failed test shows the logs of its containers first. The images of the project are built once
// per test binary, by the Makefile. Parallel tests may call all functions.
//
// A test of a container looks like this:
//
//	volume := dockertest.Volume(t)
//	c := dockertest.Run(t, "-v", volume+":/data", dockertest.Testnet(t))
//	c.WaitEvent("version started", "version", 1)
//	c.Stop()
//	assert.Zero(t, c.WaitExit())
package dockertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// Deadline is for anything that a test waits for. Only a failing test reaches it.
	Deadline = 3 * time.Minute
	// buildDeadline is for a build that compiles everything on a busy machine.
	buildDeadline = 25 * time.Minute
)

// Main runs the tests of a package if DOCKER_TESTS is set, and returns the exit code.
func Main(m *testing.M) int {
	if os.Getenv("DOCKER_TESTS") == "" {
		fmt.Println("these tests need a Docker engine; run: make docker-test")
		return 0
	}
	return m.Run()
}

// engine asks once for the version of the engine, or why there is none.
var engine = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("no Docker engine answers: %w: %s", err, bytes.TrimSpace(out))
	}
	return string(bytes.TrimSpace(out)), nil
})

// Engine returns the version of the engine. Without an engine the test fails if CI=true, and is skipped otherwise.
func Engine(t testing.TB) string {
	t.Helper()
	version, err := engine()
	if err != nil {
		Missing(t, err.Error())
	}
	return version
}

// Compose ends a test if a kind of Compose is missing, given as its command: docker compose, or docker-compose.
func Compose(t testing.TB, command ...string) {
	t.Helper()
	if err := exec.CommandContext(t.Context(), command[0], append(command[1:len(command):len(command)], "version")...).Run(); err != nil {
		Missing(t, strings.Join(command, " ")+" is missing: .ci/compose installs it")
	}
}

// Missing ends a test that cannot run on this machine: in CI it fails, elsewhere it is skipped.
func Missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// Result is the outcome of a command.
type Result struct {
	// Out is its standard output, Err its standard error, Both is the two in the order of their writes.
	Out, Err, Both string
	Code           int
}

// Command is a docker command that differs from the usual.
type Command struct {
	// Name is the program; "docker" if it is empty.
	Name string
	// Env is added to the environment of the test.
	Env []string
	// Stdin is what it reads.
	Stdin string
	// Dir is where it runs; the test's own folder if it is empty.
	Dir string
	// Timeout ends the command and the test; 0 means Deadline.
	Timeout time.Duration
}

// Do runs the command with args to its end, whatever its exit code is.
func (c Command) Do(t testing.TB, args ...string) Result {
	t.Helper()
	Engine(t)
	name, timeout := c.Name, c.Timeout
	if name == "" {
		name = "docker"
	}
	if timeout == 0 {
		timeout = Deadline
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdin = c.Dir, strings.NewReader(c.Stdin)
	cmd.Env = append(cmd.Environ(), c.Env...)
	// Programs that it starts may outlive it and hold the pipes.
	cmd.WaitDelay = 10 * time.Second
	var out, errs, both bytes.Buffer
	var mu sync.Mutex
	cmd.Stdout, cmd.Stderr = tee{&mu, &out, &both}, tee{&mu, &errs, &both}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		require.NoError(t, errors.Join(err, ctx.Err()), "%s\n%s", cmd, both.String())
	}
	return Result{Out: out.String(), Err: errs.String(), Both: both.String(), Code: cmd.ProcessState.ExitCode()}
}

// Must is Do for a command that must exit 0. It returns its standard output without the last newline.
func (c Command) Must(t testing.TB, args ...string) string {
	t.Helper()
	result := c.Do(t, args...)
	require.Zero(t, result.Code, "docker %s\n%s", strings.Join(args, " "), result.Both)
	return strings.TrimSuffix(result.Out, "\n")
}

// Docker runs docker with args, which must exit 0, and returns its standard output without the last newline.
func Docker(t testing.TB, args ...string) string {
	t.Helper()
	return Command{}.Must(t, args...)
}

// TryDocker runs docker with args to its end, whatever its exit code is.
func TryDocker(t testing.TB, args ...string) Result {
	t.Helper()
	return Command{}.Do(t, args...)
}

// tee writes to a buffer of its own and to a shared one.
type tee struct {
	mu        *sync.Mutex
	own, both *bytes.Buffer
}

func (w tee) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.both.Write(p) // never fails, as the next
	w.own.Write(p)
	return len(p), nil
}

var names atomic.Uint32

// Name returns a unique name for a container, a volume, a network or an image.
func Name() string { return fmt.Sprintf("dockertest-%d-%d", os.Getpid(), names.Add(1)) }

// Volume makes a named volume and returns its name.
func Volume(t testing.TB) string {
	t.Helper()
	name := Name()
	Docker(t, "volume", "create", name)
	t.Cleanup(func() { cleanUp(t, "volume", "rm", "-f", name) })
	return name
}

// Network makes a bridge network and returns its name.
func Network(t testing.TB) string {
	t.Helper()
	name := Name()
	Docker(t, "network", "create", name)
	t.Cleanup(func() { cleanUp(t, "network", "rm", name) })
	return name
}

// cleanUp runs a docker command that may fail, because what it removes may be gone already.
func cleanUp(t testing.TB, args ...string) {
	if result := TryDocker(t, args...); result.Code != 0 {
		t.Logf("docker %s: %s", strings.Join(args, " "), result.Both)
	}
}

// Root is the top folder of the project.
func Root(t testing.TB) string {
	t.Helper()
	// go test runs a test in the folder of its package.
	for dir := "."; ; dir = filepath.Join(dir, "..") {
		abs, err := filepath.Abs(dir)
		require.NoError(t, err)
		if _, err := os.Stat(filepath.Join(abs, "go.mod")); err == nil {
			return abs
		}
		require.NotEqual(t, "/", abs, "no go.mod in any folder above")
	}
}
