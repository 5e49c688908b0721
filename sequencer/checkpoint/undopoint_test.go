package checkpoint

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func somePoint() UndoPoint {
	height := uint64(100)
	return UndoPoint{
		ID: "A", Stamp: Stamp{Name: "v0", StopHeight: 100}, To: UndoTarget{VersionIndex: 1, Name: "v1", StartHeight: 101},
		Height: &height, Checkpoint: "{}\n", Method: UndoReflink, Bytes: 7, CreatedAt: time.Date(2026, 11, 30, 7, 0, 0, 0, time.UTC),
	}
}

func TestUndoPointIsReadAsItWasWritten(t *testing.T) {
	dir := t.TempDir()
	none, err := ReadUndoPoint(dir)
	require.NoError(t, err)
	assert.Nil(t, none, "a directory without a description is none")
	text, err := EncodeUndoPoint(somePoint())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, UndoFile), text, 0o600))
	got, err := ReadUndoPoint(dir)
	require.NoError(t, err)
	want := somePoint()
	want.Path = dir
	assert.Equal(t, &want, got)
	for n := range text[:len(text)-1] {
		_, err := ParseUndoPoint(text[:n])
		require.Error(t, err, "torn after %d bytes", n)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, UndoFile), text[:20], 0o600))
	_, err = ReadUndoPoint(dir)
	require.ErrorContains(t, err, UndoFile)
}

func TestUndoPointThatNobodyMakesIsRefused(t *testing.T) {
	for name, change := range map[string]func(p *UndoPoint){
		"no id":   func(p *UndoPoint) { p.ID = "" },
		"method":  func(p *UndoPoint) { p.Method = "magic" },
		"bytes":   func(p *UndoPoint) { p.Bytes = -1 },
		"version": func(p *UndoPoint) { p.Stamp.VersionIndex = -1 },
	} {
		p := somePoint()
		change(&p)
		_, err := EncodeUndoPoint(p)
		require.Error(t, err, name)
	}
}

// The description must be readable whatever the checkpoint is: a long one is left out.
func TestLongCheckpointIsNoPartOfTheUndoPoint(t *testing.T) {
	p := somePoint()
	p.Checkpoint = strings.Repeat("x", limit)
	text, err := EncodeUndoPoint(p)
	require.NoError(t, err)
	got, err := ParseUndoPoint(text)
	require.NoError(t, err)
	assert.Empty(t, got.Checkpoint)
}

func TestStateThatIsHalfPutBackNamesNoVersion(t *testing.T) {
	half := HalfPutBack()
	assert.True(t, half.IsHalfPutBack())
	assert.False(t, half.IsHalfDeleted())
	text, err := EncodeStamp(half)
	require.NoError(t, err)
	read, err := ParseStamp(text)
	require.NoError(t, err)
	assert.True(t, read.IsHalfPutBack())
	assert.Equal(t, "/s contains the mount point /s/m", (&MountError{Storage: "/s", Point: "/s/m"}).Error())
	assert.Equal(t, "/s is a mount point, which cannot be renamed", (&MountError{Storage: "/s", Point: "/s"}).Error())
}

func TestRecordOfARunIsBesideTheCheckpoint(t *testing.T) {
	assert.Equal(t, "/data/c.json.last-run", LastRunPath("/data/c.json"))
}
