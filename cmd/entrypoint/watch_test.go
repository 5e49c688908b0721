package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal of this size.
func terminal(t *testing.T, columns, rows uint16) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tty.Close() })
	require.NoError(t, unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}))
	return tty
}

func TestTerminalSizeIsThatOfTheTerminal(t *testing.T) {
	width, height := terminalSize(terminal(t, 40, 12))
	assert.Equal(t, [2]int{40, 12}, [2]int{width, height})
	file, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer file.Close()
	width, height = terminalSize(file)
	assert.Equal(t, [2]int{}, [2]int{width, height}, "not a terminal")
}

// A text that is longer than the terminal would scroll, and each new one would be drawn over the wrong lines.
func TestWatchedStatusIsCutToTheTerminal(t *testing.T) {
	for lines := range 8 {
		text := strings.Repeat("line\n", lines)
		assert.Equal(t, text, firstLines(text, 0), "of unknown height")
		cut := firstLines(text, 5)
		assert.Less(t, strings.Count(cut, "\n"), 5, "the cursor needs a line")
		if lines < 5 {
			assert.Equal(t, text, cut)
		} else {
			assert.Equal(t, "line\nline\nline\n…\n", cut)
		}
	}
}
