package preflight

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/images"
	"rollup-entrypoint/sequencer"
)

// A folder with many problems must neither fill the log nor hold up a start: the first ones are enough.
func TestManyProblemsOfAFolderAreCounted(t *testing.T) {
	root := t.TempDir()
	folder := filepath.Join(root, "versions", "v0")
	require.NoError(t, os.MkdirAll(folder, 0o755))
	extra := func(n int) {
		for i := range n {
			touch(t, filepath.Join(folder, fmt.Sprintf("extra-%04d", i)))
		}
	}
	program := filepath.Join(folder, "extra-0000")
	recorded := images.RecordedVersion{Name: "v0"}
	n := New(&sequencer.Plan{Versions: []sequencer.Version{{Binary: program, Config: "/nowhere"}}})
	n.verifier = images.Verifier{Root: root, Manifest: &images.Manifest{Versions: []images.RecordedVersion{recorded}}}
	look := func() []string { return rows(n.compareVersion(t.Context(), 0, sequencer.Manifest)) }

	extra(21)
	got := look()
	require.Len(t, got, 21)
	assert.Contains(t, got[0], "0 error: "+program+" is not in the manifest")
	assert.Contains(t, got[20], "0 warning: "+folder+"/extra-0020 is not in the manifest")
	extra(1000)
	got = look()
	require.Len(t, got, 22, "the program was found before")
	assert.Contains(t, got[20], "0 warning: "+folder+"/extra-0020 is not in the manifest")
	const list = "more problems → 'entrypoint manifest verify' lists them"
	assert.Equal(t, "0 warning: "+folder+" has 979 "+list, got[21])

	for i := range 25 {
		recorded.Files = append(recorded.Files, images.RecordedFile{Path: fmt.Sprintf("missing-%04d", i)})
	}
	n.verifier.Manifest.Versions[0] = recorded
	got = look()
	require.Len(t, got, 22)
	assert.Equal(t, "0 error: "+folder+" has 1004 "+list, got[21], "some of the others are errors")
}
