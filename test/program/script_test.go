package program

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The command line, as it is typed: what is printed where, and the exit code.
func TestScripts(t *testing.T) {
	t.Parallel()
	readSources()
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"), RequireExplicitExec: true, RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exitsCommand},
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", programs.dir+string(os.PathListSeparator)+os.Getenv("PATH"))
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Setenv("ENTRYPOINT_TERMINATION_LOG", "") // these tests may run in a pod
			env.Setenv("ENTRYPOINT", programs.entrypoint)
			env.Setenv("MOCK_ROLLUP", filepath.Join(programs.dir, "mock-rollup"))
			env.Setenv("ENTRYPOINT_LISTEN", "")
			return nil
		},
	})
}

// exitsCommand is "exits CODE COMMAND [ARGUMENTS]": exec, with the exit code that is wanted.
func exitsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARGUMENTS]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	if code := exitCode(err); code != want {
		ts.Fatalf("%s exits %d (%v), want %d", args[1], code, err, want)
	}
}

// exitCode is the code of a command that ran, as a shell gives it.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}
