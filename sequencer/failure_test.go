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
