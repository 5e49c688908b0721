package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer"
)

// omitted replaces what was cut out.
const omitted = " […] "

func failureOf(cause int, stderr ...string) *sequencer.Failure {
	return &sequencer.Failure{
		Code: 101, What: "what happened", Safe: "what is safe", Next: "what is next", Err: errors.New(strings.Repeat("ж", cause/2)),
		Stderr: strings.Join(stderr, "\n"),
	}
}

func TestTerminationMessageCutsStderrBeforeTheCauseAndTheSentenceNever(t *testing.T) {
	long := "first " + strings.Repeat("€", 20_000) + " last"
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("line %d %s", i, strings.Repeat("x", 90)))
	}
	for name, test := range map[string]struct {
		f          *sequencer.Failure
		has, hasNo []string
	}{
		"everything fits":         {failureOf(20, "one", "two"), []string{"stderr:\n  one\n  two\n"}, []string{omitted}},
		"a long line":             {failureOf(20, "one", long, "three"), []string{"  one\n  first €", "€ last\n  three\n", omitted}, nil},
		"many lines":              {failureOf(20, many...), []string{"line 99 ", "line 98 "}, []string{"line 0 ", omitted}},
		"many, one of them long":  {failureOf(20, append(many, long)...), []string{"line 99 ", "  first €"}, []string{"line 0 "}},
		"stderr is gone first":    {failureOf(4000, many...), []string{"ж\n"}, []string{"stderr", omitted}},
		"then the cause is cut":   {failureOf(9000, many...), []string{"what happened: ж", omitted, "ж\n"}, []string{"stderr"}},
		"bytes that are no UTF-8": {failureOf(20, "a\xffb", "\x1b[31mred\x1b[0m\x1b[2J\x00\tend"), []string{"  a\uFFFDb\n", "  red\\u001b[2J\\u0000 end\n"}, []string{"\x1b", "\x00"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := terminationMessage(test.f)
			assert.LessOrEqual(t, len(text), terminationLimit)
			assert.True(t, utf8.ValidString(text))
			for _, part := range append(test.has, "entrypoint: exit code 101: what happened: ж", "\nsafe: what is safe\n", "\nnext: what is next\n") {
				assert.Contains(t, text, part)
			}
			for _, part := range test.hasNo {
				assert.NotContains(t, text, part)
			}
		})
	}
}

func TestTerminationMessageOfEveryLengthFits(t *testing.T) {
	for size := range 700 {
		f := failureOf(size*9, strings.Repeat("€", size), strings.Repeat("é", size*2))
		f.Next = strings.Repeat("n", size*8)
		text := terminationMessage(f)
		require.LessOrEqual(t, len(text), terminationLimit, "size %d", size)
		require.True(t, utf8.ValidString(text), "size %d", size)
		require.True(t, strings.HasPrefix(text, terminationStart+"101: "))
	}
}

func TestTerminationFileIsTheFlagThenTheVariableThenThatOfKubernetes(t *testing.T) {
	t.Setenv(envName(terminationFlag), "")
	parse := func(args ...string) terminationFile {
		flags := newFlags("run", runUsage)
		(&runFlags{}).register(flags)
		_ = flags.parse(args) // also where it is not read to its end
		return terminationOf(flags)
	}
	assert.Equal(t, "", parse().path)
	t.Setenv(envName(terminationFlag), "from-env")
	assert.Equal(t, terminationFile{"from-env", true}, parse("--no-such-flag"))
	assert.Equal(t, terminationFile{"flag", true}, parse("--termination-log=flag", "--no-such-flag"))
	assert.Equal(t, terminationFile{kubernetesTermination, false}, parse("--termination-log", kubernetesTermination))
}

// A mistake does not hide where the message about it goes.
func TestTerminationFileIsFoundBehindAMistake(t *testing.T) {
	t.Setenv(envName(terminationFlag), "from-env")
	t.Setenv(envName("checkpoint-file"), "checkpoint-from-env")
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--no-such-flag", "--termination-log=file"}, "file"},
		{[]string{"--no-such-flag", "value", "--termination-log", "file"}, "file"},
		{[]string{"--no-such-flag=value", "--termination-log", "file"}, "file"},
		{[]string{"-x", "--termination-log", "file"}, "file"},
		{[]string{"--restarts=often", "--stop-timeout", "5", "--termination-log", "file"}, "file"},
		{[]string{"--termination-log", "first", "--no-such-flag", "--termination-log", "last"}, "last"},
		{[]string{"argument", "--termination-log", "file", "--restarts"}, "file"},
		{[]string{"---", "--=x", "---no-such-flag", "--termination-log", "file"}, "file"},
		{[]string{"-stop-height", "5", "--termination-log", "file"}, "file"},
		{[]string{"-hold-file", "hold", "--termination-log", "file"}, "file"},
		{[]string{"--no-such-flag", "--help", "--termination-log", "file"}, "file"},
		{[]string{"--stop-height", "--termination-log=file"}, "file"},
		{[]string{"--no-such-flag", "--termination-log="}, ""},
		{[]string{"--no-such-flag"}, "from-env"},
		{[]string{"--no-such-flag", "--termination-log"}, "from-env"},
		// What is behind -- is the node's, and a value is no flag.
		{[]string{"--no-such-flag", "--", "--termination-log", "file"}, "from-env"},
		{[]string{"--no-such-flag", "-c", "--termination-log", "-f", "file"}, "from-env"},
		// These names are refused: it would be taken for a checkpoint, or hold the sequence.
		{[]string{"--no-such-flag", "-f", "./file", "--termination-log", "file"}, ""},
		{[]string{"--no-such-flag", "--termination-log", "file", "-f", "file", "--no-checkpoint-file"}, ""},
		{[]string{"--no-such-flag", "--termination-log", "checkpoint-from-env"}, ""},
		{[]string{"--no-such-flag", "--termination-log", "file", "--hold-file", "file"}, ""},
		{[]string{"--no-such-flag", "--termination-log", "dir/hold", "-f", "dir/c.json"}, ""},
		{[]string{"--termination-log", "file", "--hold-file", "file"}, ""},
		{[]string{"--no-such-flag", "--termination-log", "state/rollup-version.json"}, ""},
	} {
		flags := newFlags("run", runUsage)
		(&runFlags{}).register(flags)
		require.Error(t, flags.parse(test.args))
		assert.Equal(t, test.want, terminationOfMistake(flags).path, test.args)
	}
}
