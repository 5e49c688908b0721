package sequencer

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFailureReadsAsOneSentence(t *testing.T) {
	for _, test := range []struct {
		name string
		f    *Failure
		want string
	}{
		{
			"all parts", failf(78, "%s is broken", "version 1").because(fs.ErrNotExist).safe("nothing was started").next("fix %s", "it"),
			"version 1 is broken: file does not exist; nothing was started; fix it",
		},
		{"without a cause", failf(75, "it ended").safe("all is well").next("start again"), "it ended; all is well; start again"},
		{"only what happened", failf(1, "it ended"), "it ended"},
		{"without what is safe", failf(1, "it ended").next("start again"), "it ended; start again"},
		{"stderr is not part of it", &Failure{What: "it ended", Stderr: "panic"}, "it ended"},
		{"a percent sign in a text is not formatted", failf(1, "it ended").safe("100%"), "it ended; 100%"},
	} {
		t.Run(test.name, func(t *testing.T) {
			assert.Equal(t, test.want, test.f.Error())
		})
	}
}

func TestFailureIsFoundWithItsCodeAndCause(t *testing.T) {
	err := fmt.Errorf("run: %w", failf(65, "unreadable").because(fs.ErrPermission))
	var f *Failure
	require.ErrorAs(t, err, &f)
	assert.Equal(t, 65, f.Code)
	require.ErrorIs(t, err, fs.ErrPermission)
	assert.NoError(t, errors.Unwrap(failf(1, "no cause")))
}

func TestProblemsAreListedOneALine(t *testing.T) {
	assert.EqualError(t, Problems{"one"}, "one")
	assert.EqualError(t, Problems{"one", "two"}, "2 problems:\n  one\n  two")
}

func TestExitCodesAreTheDocumentedOnes(t *testing.T) {
	assert.Equal(t, []int{64, 65, 74, 75, 78, 126, 127}, []int{
		CodeUsage, CodeCheckpointUnreadable, CodeCheckpointNotWritable, CodeEarlyExit, CodeMismatch, CodeNotExecutable, CodeNotFound,
	})
}

func TestRemedyIsACommandThatAShellTakes(t *testing.T) {
	for want, r := range map[string]Remedy{
		"entrypoint checkpoint set -c manager.json -f /data/checkpoint.json --version 2": {Version: 2, Config: "manager.json", Checkpoint: "/data/checkpoint.json"},
		"entrypoint checkpoint set -c manager.json --no-checkpoint-file --version 0":     {Config: "manager.json"},
		"entrypoint checkpoint set -c m -f c --version 1 --migrated --complete --force":  {Version: 1, Migrated: true, Complete: true, Force: true, Config: "m", Checkpoint: "c"},
		`entrypoint checkpoint set -c 'my manager.json' -f 'it'\''s $HOME' --version 0`:  {Config: "my manager.json", Checkpoint: "it's $HOME"},
	} {
		assert.Equal(t, want, r.Command())
	}
}

func TestWhatToDoHasTheCommandsOfTheRemediesWithTheirConditions(t *testing.T) {
	f := failf(78, "it ended").next("look").remedy(Remedy{When: "it was so", Version: 1}, Remedy{Version: 0}).withFiles(&Plan{File: "m.json"}, "c.json")
	assert.Equal(t, "look; if it was so, run 'entrypoint checkpoint set -c m.json -f c.json --version 1'; run 'entrypoint checkpoint set -c m.json -f c.json --version 0'", f.ToDo())
	assert.Equal(t, "it ended; "+f.ToDo(), f.Error())
}

func TestCommandsInAFailureNameTheRealFiles(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1))
		w.plan.File, w.options.Checkpoint, w.store.stamp = "my manager.json", "/data/checkpoint.json", nil
		f := w.failsBecause(OtherState, Remedy{Version: 0}, Remedy{Version: 1, Migrated: true}, Remedy{Version: 2})
		assert.Contains(t, f.ToDo(), "'entrypoint checkpoint set -c 'my manager.json' -f /data/checkpoint.json --version 1 --migrated'")
	})
}

// A failure may be read by an observer while the run still words it.
func TestFailureThatWasHandedOutIsNotChanged(t *testing.T) {
	lives(t, func(t *testing.T) {
		type shown struct {
			failure *Failure
			text    string
		}
		var all []shown
		w := worldAt(t, stamped(1), act{askV1, answers(40)})
		w.options.Checkpoint = "/data/checkpoint.json"
		w.store.failStamp = failing(1)
		w.options.Observe = func(s State) {
			if s.Failure != nil {
				all = append(all, shown{s.Failure, fmt.Sprintf("%+v", *s.Failure)})
			}
		}
		f := w.fails(CodeCheckpointNotWritable)
		assert.NotNil(t, f.Version)
		require.NotEmpty(t, all)
		for _, one := range all {
			assert.Equal(t, one.text, fmt.Sprintf("%+v", *one.failure))
		}
	})
}
