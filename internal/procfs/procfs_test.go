package procfs

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStatIsParsedWhateverTheName(t *testing.T) {
	const rest = " S 7 8 9 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 3 0 12345 0 0"
	for _, comm := range []string{"sleep", "a b", ") R 1 1 1 (", "line\nend", "((", ""} {
		p, err := parse(42, "42 ("+comm+")"+rest)
		require.NoError(t, err)
		require.Equal(t, Process{Pid: 42, Command: comm, Parent: 7, Group: 8, Session: 9, Threads: 3, State: 'S', Start: 12345}, p)
	}
	for _, bad := range []string{"", "42", "42 x S 7 8 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 12345", "42 (x) S 7", "42 (x) S x 8 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 12345"} {
		_, err := parse(42, bad)
		require.Error(t, err, bad)
	}
}

func TestZombieIsNotAlive(t *testing.T) {
	require.True(t, Process{State: 'S', Threads: 1}.Alive())
	require.True(t, Process{State: 'D', Threads: 1}.Alive())
	require.True(t, Process{State: 'T', Threads: 1}.Alive())
	require.True(t, Process{State: 'Z', Threads: 2}.Alive(), "only its first thread has ended")
	require.False(t, Process{State: 'Z', Threads: 1}.Alive())
	require.False(t, Process{State: 'X', Threads: 0}.Alive())
}

func TestForeignProcTableIsRefused(t *testing.T) {
	for _, self := range []string{"", "1", "not a number"} {
		root := t.TempDir()
		if self != "" {
			require.NoError(t, os.Symlink(self, root+"/self"))
		}
		_, err := Pids(root)
		require.ErrorIs(t, err, ErrUnusable)
	}
}

func TestOwnProcessIsShown(t *testing.T) {
	pids, err := Pids(Root)
	require.NoError(t, err)
	require.Contains(t, pids, os.Getpid())
	p, err := Read(Root, os.Getpid())
	require.NoError(t, err)
	require.Equal(t, os.Getppid(), p.Parent)
	require.True(t, p.Alive())
	_, err = Read(Root, 1<<30)
	require.ErrorIs(t, err, os.ErrNotExist)
}
