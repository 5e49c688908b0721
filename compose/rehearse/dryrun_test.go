package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const dryRunOf1 = `{"version_index": 1, "exit_code": CODE, "seconds": 2.04, "state_bytes": 4096, "free_bytes": 8192, "report": "1 table\n12 rows\n"}`

func TestDryRunIsJudgedByItsExitCode(t *testing.T) {
	s := &stepReport{}
	require.NoError(t, s.judgeDryRun("a", 0, []byte(strings.ReplaceAll(dryRunOf1, "CODE", "0")), `{"msg":"migration finished"}`))
	require.Equal(t, []string{
		"migration of version 1 on a: exited 0 after 2.0 s; the state has 4096 bytes, and 8192 are free", "report: 1 table", "report: 12 rows",
	}, s.Notes)

	s = &stepReport{}
	err := s.judgeDryRun("a", 3, []byte(strings.ReplaceAll(dryRunOf1, "CODE", "3")), "reading\nno such table\n{\"msg\":\"migration finished\"}\n")
	var found failures
	require.ErrorAs(t, err, &found)
	require.Equal(t, "a, version 1: the dry run of its migration exited 3: no such table", found[0].Sentence)
	require.Equal(t, "reading\nno such table", found[0].Stderr)
	require.Equal(t, 1, *found[0].Version)
	require.Equal(t, 3, *found[0].ExitCode)
}

func TestDryRunThatCameToNoneIsAFailureUnlessThereIsNothingToTry(t *testing.T) {
	s := &stepReport{}
	require.NoError(t, s.judgeDryRun("a", 78, nil, "entrypoint: no dry run: the state is at version 1, and the next one, version 2, has no migration; nothing was started\n"))
	require.Equal(t, []string{"not tried: the state of a is at version 1, and the next one, version 2, has no migration; nothing was started"}, s.Notes)
	for complaint, says := range map[string]string{
		"entrypoint: the state cannot be used":   "a: entrypoint migrate --dry-run exited 78: the state cannot be used",
		"entrypoint: unknown command\nTry: this": "a: entrypoint migrate --dry-run exited 78: unknown command",
		"":                                       "a: entrypoint migrate --dry-run exited 78: it wrote nothing to stderr",
	} {
		require.EqualError(t, s.judgeDryRun("a", 78, []byte("{}"), complaint), says)
	}
}
