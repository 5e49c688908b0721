package sequencer

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
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
			"all parts", failf(78, "%s is broken", "version 1").because(fs.ErrNotExist).safe("nothing was started").next("mend %s", "it"),
			"version 1 is broken: file does not exist; nothing was started; mend it",
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

// A failure tells the version that the run was at when it failed, and only one that the plan has.
func TestFailureTellsTheVersionAndTheHeights(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v1First, refusesStart(21, 31)}, act{v1Later, func(p *fakeProcess) { p.at(33); p.exits(101) }})
		w.store.have = record(1, PhaseRunning, false)
		w.store.have.MigrationCompleted = true
		f := w.fails(101)
		require.NotNil(t, f.Version)
		require.NotNil(t, f.Height)
		assert.Equal(t, []uint64{1, 21, 40, 33}, []uint64{uint64(*f.Version), f.Start, f.Stop, *f.Height}, "version, start, stop and height")

		w = newWorld(t)
		w.store.have = &Checkpoint{VersionIndex: 7, BinaryPath: "/v7", Phase: PhaseRunning}
		f = w.fails(CodeMismatch)
		assert.Nil(t, f.Version, "the plan has no such version")
		assert.Nil(t, f.Height)
	})
}

// Whoever looks at the state may read a failure while the run still words it.
func TestFailureThatWasHandedOutIsNotChanged(t *testing.T) {
	lives(t, func(t *testing.T) {
		type told struct {
			failure *Failure
			text    string
		}
		var all []told
		w := newWorld(t, act{v0, func(p *fakeProcess) {
			p.at(22)
			p.gets(syscall.SIGTERM)
			p.says("last words")
			p.exits(0)
		}})
		w.options.Observe = func(s State) {
			if s.Failure != nil {
				all = append(all, told{s.Failure, fmt.Sprintf("%+v", *s.Failure)})
			}
		}
		f := w.fails(CodeMismatch)
		assert.Equal(t, "last words", f.Stderr)
		require.NotEmpty(t, all)
		for _, one := range all {
			assert.Equal(t, one.text, fmt.Sprintf("%+v", *one.failure))
		}
	})
}
