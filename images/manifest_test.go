package images

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/layout"
)

// sha256 of what the tests put into files.
const (
	sumHello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	sumJello = "187c9bceeb919e1b3e6d20fa50ecabf7d9d50b5343e8f9a3d912abb13929102e"
	sumEmpty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// twoVersions is a root with a plan and two versions, of which the second has a link and a folder.
func twoVersions(t *testing.T) root {
	r := newRoot(t)
	r.put("manager.json", []byte("hello"), 0o644)
	r.put("versions/v0/rollup", []byte("hello"), 0o755)
	r.put("versions/v0/config.toml", nil, 0o600)
	r.put("versions/v1/rollup", elfText(program{
		class: class64, data: littleEndian, machine: 62, kind: typeDyn, interpreter: "/lib64/ld-linux-x86-64.so.2", needed: []string{"libz.so.1", "libc.so.6"},
	}), 0o755)
	r.put("versions/v1/data/genesis.json", []byte("hello"), 0o644)
	r.put("versions/v1/data-2", []byte("hello"), 0o644)
	r.link("versions/v1/genesis.json", "data/genesis.json")
	return r
}

func record(t *testing.T, r root) *Manifest {
	t.Helper()
	m, err := RecordManifest(t.Context(), r.root, RecordOptions{})
	require.NoError(t, err)
	return m
}

func encoded(t *testing.T, m *Manifest) string {
	t.Helper()
	text, err := m.encode()
	require.NoError(t, err)
	return string(text)
}

// manifestOfTwoVersions is the manifest of twoVersions, but for the SIZE and the SUM of the program of v1.
const manifestOfTwoVersions = `{
  "schema": 1,
  "labels": {
    "a": "==",
    "b": "https://x/?a=1&b=<2>"
  },
  "files": [
    {
      "path": "manager.json",
      "size": 5,
      "sha256": "` + sumHello + `"
    }
  ],
  "versions": [
    {
      "name": "v0",
      "files": [
        {
          "path": "config.toml",
          "size": 0,
          "sha256": "` + sumEmpty + `"
        },
        {
          "path": "rollup",
          "size": 5,
          "sha256": "` + sumHello + `",
          "executable": true
        }
      ]
    },
    {
      "name": "v1",
      "files": [
        {
          "path": "data-2",
          "size": 5,
          "sha256": "` + sumHello + `"
        },
        {
          "path": "data/genesis.json",
          "size": 5,
          "sha256": "` + sumHello + `"
        },
        {
          "path": "genesis.json",
          "size": 0,
          "link": "data/genesis.json"
        },
        {
          "path": "rollup",
          "size": SIZE,
          "sha256": "SUM",
          "executable": true
        }
      ]
    }
  ]
}
`

func TestManifestHasEachFileOfEachVersion(t *testing.T) {
	t.Parallel()
	r := twoVersions(t)
	r.put("versions/v1/cache.json", []byte("written by the node"), 0o644)
	r.put("README", []byte("nobody asks for it"), 0o644)
	m, err := RecordManifest(t.Context(), r.root, RecordOptions{
		Labels: map[string]string{"b": "https://x/?a=1&b=<2>", "a": "=="}, Skip: func(name string) bool { return name == "cache.json" },
	})
	require.NoError(t, err)
	program := m.Versions[1].Files[3]
	assert.Len(t, program.SHA256, 64)
	got := strings.Replace(encoded(t, m), program.SHA256, "SUM", 1)
	assert.Equal(t, strings.Replace(manifestOfTwoVersions, "SIZE", "425", 1), got)
}

// Two builds of the same files give the same layer.
func TestManifestOfTheSameFilesHasTheSameBytes(t *testing.T) {
	t.Parallel()
	one, two := twoVersions(t), twoVersions(t)
	past := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(two.root, "versions/v0/rollup"), past, past))
	require.Equal(t, encoded(t, record(t, one)), encoded(t, record(t, two)))

	name := filepath.Join(one.root, layout.ManifestFile)
	require.NoError(t, WriteManifest(name, record(t, one)))
	first, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, WriteManifest(name, record(t, one)))
	second, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, string(first), string(second))
	info, err := os.Stat(name)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o644), info.Mode())
	entries, err := os.ReadDir(one.root)
	require.NoError(t, err)
	assert.Len(t, entries, 3, "no temporary file is left over")

	m, err := ReadManifest(name)
	require.NoError(t, err)
	assert.Equal(t, record(t, two), m, "what was written is read")
}

func TestWhatAManifestCannotVouchForIsNotRecorded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		do   func(r root)
		want string
	}{
		"no versions":            {func(r root) { r.remove("versions") }, "cannot find the versions"},
		"an empty folder":        {func(r root) { r.remove("versions/v0/rollup", "versions/v0/config.toml") }, "versions/v0 has no file"},
		"no folder at all":       {func(r root) { r.remove("versions/v0", "versions/v1") }, "versions has no folder"},
		"a file beside versions": {func(r root) { r.put("versions/notes", nil, 0o644) }, "versions/notes is not a folder, and only the folders of versions belong there: remove it"},
		"a link to a version":    {func(r root) { r.link("versions/v2", "v1") }, "versions/v2 is not a folder"},
		"a link to another one":  {func(r root) { r.link("versions/v1/x", "../v0/rollup") }, "versions/v1/x is a link to ../v0/rollup, which is not in its folder"},
		"an absolute link":       {func(r root) { r.link("versions/v1/x", "/etc/passwd") }, "is a link to /etc/passwd, which is not in its folder"},
		"a link that leads back": {func(r root) { r.link("versions/v1/x", "../v1/rollup") }, "which is not in its folder"},
		"a link to nothing":      {func(r root) { r.link("versions/v1/x", "nothing") }, "which leads nowhere"},
		"a link to itself":       {func(r root) { r.link("versions/v1/x", "x") }, "which leads nowhere"},
		"a way out through links": {func(r root) {
			r.link("versions/v1/data/here", "..")
			r.link("versions/v1/x", "data/here/../../manager.json")
		}, "versions/v1/x is a link to data/here/../../manager.json, which leads to "},
		"a folder that leads out": {func(r root) { r.link("versions/v1/d", "."); r.link("versions/v1/x", "d/../v0") }, "versions/v0, out of its folder: put the file itself there"},
		"a pipe": {func(r root) {
			require.NoError(r.t, unix.Mkfifo(filepath.Join(r.root, "versions/v1/pipe"), 0o644))
		}, "versions/v1/pipe is a pipe, socket or device, want a regular file"},
		"a broken program":  {func(r root) { r.put("versions/v1/rollup", static()[:40], 0o755) }, "versions/v1/rollup is broken: it is cut off inside its header"},
		"a name in Latin-1": {func(r root) { r.put("versions/v1/gr\xfc\xdfe", nil, 0o644) }, "has no name in UTF-8"},
		"a plan that is a folder": {
			func(r root) {
				r.remove("manager.json")
				require.NoError(r.t, os.Mkdir(filepath.Join(r.root, "manager.json"), 0o755))
			},
			"manager.json is a folder, want a regular file",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := twoVersions(t)
			r.t = t
			test.do(r)
			_, err := RecordManifest(t.Context(), r.root, RecordOptions{})
			require.ErrorContains(t, err, test.want)
		})
	}
	_, err := RecordManifest(t.Context(), twoVersions(t).root, RecordOptions{Labels: map[string]string{"a": "\xff"}})
	require.ErrorContains(t, err, "cannot be recorded: it is not text")
}

func (r root) remove(names ...string) {
	r.t.Helper()
	for _, name := range names {
		require.NoError(r.t, os.RemoveAll(filepath.Join(r.root, name)))
	}
}

func TestFileThatIsNoManifestIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	whole := encoded(t, record(t, twoVersions(t)))
	change := func(old, with string) string {
		require.Contains(t, whole, old)
		return strings.Replace(whole, old, with, 1)
	}
	for name, test := range map[string]struct{ text, want string }{
		"empty":               {"", "the file is empty"},
		"white space":         {"\n ", "the file is empty"},
		"torn":                {whole[:len(whole)/2], "the file is torn: it ends in the middle of the JSON text"},
		"after a power cut":   {strings.Repeat("\x00", 100), "the file is torn: it has NUL bytes, as after a power cut"},
		"two at once":         {whole + whole, "the file continues after its end"},
		"a list":              {"[]", "manifest is a list, want an object"},
		"no JSON":             {"FROM scratch", "invalid character 'F'"},
		"Latin-1":             {change("v0", "\xfc"), "line 13, column 16: not valid JSON: the byte 0xfc is not UTF-8"},
		"of an OCI image":     {`{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}`, `line 1, column 2: manifest: unknown key`},
		"unknown key":         {change(`"size"`, `"bytes"`), `line 7, column 7: files: unknown key`},
		"another case":        {change(`"sha256"`, `"SHA256"`), `unknown key "SHA256" (did you mean "sha256"?)`},
		"twice":               {change(`"size": 5,`, `"size": 5, "size": 6,`), `key "size" is repeated`},
		"a label twice":       {change(`"labels": {}`, `"labels": {"a": "1", "a": "2"}`), `a key is repeated`},
		"a newer one":         {`{"schema": 2, "layers": []}`, "its schema is 2, and this program knows 1: a newer entrypoint has written it"},
		"no schema":           {change(`"schema": 1`, `"schema": 0`), "its schema is 0, want 1"},
		"no version":          {`{"schema": 1, "labels": {}, "files": [], "versions": []}`, "it has no version"},
		"wrong type":          {change(`"size": 5`, `"size": "5"`), "line 7, column 18: files.size has the wrong type"},
		"label is an object":  {change(`"labels": {}`, `"labels": {"a": {}}`), "line 3, column 20: labels has the wrong type"},
		"not sorted":          {change(`"name": "v1"`, `"name": "a"`), `version "a" comes after "v0": they are not sorted`},
		"a version twice":     {change(`"name": "v1"`, `"name": "v0"`), "they are not sorted"},
		"files not sorted":    {change(`"path": "data-2"`, `"path": "z"`), `version "v1": "data/genesis.json" comes after "z": they are not sorted`},
		"a way out":           {change(`"path": "config.toml"`, `"path": "../manager.json"`), `version "v0": "../manager.json" is not a path below its folder`},
		"an absolute path":    {change(`"path": "config.toml"`, `"path": "/etc/passwd"`), `is not a path below its folder`},
		"a path that is long": {change(`"path": "config.toml"`, `"path": "a/../config.toml"`), `is not a path below its folder`},
		"a name with a slash": {change(`"name": "v1"`, `"name": "v1/x"`), `version "v1/x": that is not the name of a folder`},
		"a name of dots":      {change(`"name": "v1"`, `"name": ".."`), `version "..": that is not the name of a folder`},
		"no hex":              {change(sumEmpty, strings.Repeat("x", 64)), "its sha256 is not 64 digits of hex"},
		"a short digest":      {change(sumEmpty, sumEmpty[:63]), "its sha256 is not 64 digits of hex"},
		"no digest":           {change(`"link": "data/genesis.json"`, `"link": ""`), "its sha256 is not 64 digits of hex"},
		"a negative size":     {change(`"size": 0,`, `"size": -1,`), "its size is -1"},
		"a link and a file":   {change(`"link": "data/genesis.json"`, `"link": "x", "executable": true`), "is a link and a file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "manifest.json")
			require.NoError(t, os.WriteFile(file, []byte(test.text), 0o644))
			_, err := ReadManifest(file)
			require.ErrorContains(t, err, test.want)
			assert.True(t, strings.HasPrefix(err.Error(), file+": "), err.Error())
		})
	}
}

func TestManifestThatCannotBeReadIsAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := ReadManifest(dir + "/none")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = ReadManifest(dir)
	require.EqualError(t, err, "cannot read the manifest: open "+dir+": it is an empty directory, want a regular file: Docker makes one if the source of a bind mount is missing on the host")
	require.NoError(t, unix.Mkfifo(dir+"/fifo", 0o644))
	_, err = ReadManifest(dir + "/fifo")
	require.EqualError(t, err, "cannot read the manifest: open "+dir+"/fifo: it is a FIFO, want a regular file")
	large, err := os.Create(dir + "/large")
	require.NoError(t, err)
	require.NoError(t, large.Truncate(manifestLimit+1))
	require.NoError(t, large.Close())
	_, err = ReadManifest(dir + "/large")
	require.EqualError(t, err, "cannot read the manifest: read "+dir+"/large: the file is too large: more than 16777216 bytes")

	require.ErrorContains(t, WriteManifest(dir+"/none/manifest.json", &Manifest{}), "cannot write the manifest: cannot write beside "+dir+"/none/manifest.json")
	require.NoError(t, os.Mkdir(dir+"/folder", 0o755))
	require.ErrorContains(t, WriteManifest(dir+"/folder", &Manifest{}), "cannot write the manifest: cannot replace "+dir+"/folder")
}

func verifier(t *testing.T, r root) *Verifier { return &Verifier{Root: r.root, Manifest: record(t, r)} }

// differences shows what was found as a test wants to see it: without the root, and without what to do next.
func differences(r root, found []Problem) []string {
	all := []string{}
	for _, d := range found {
		line := d.Version + ": " + strings.ReplaceAll(d.What, r.root+"/", "")
		if !d.Sure {
			line = "extra " + line
		}
		all = append(all, line)
	}
	return all
}

func TestEveryDifferenceIsFoundAtOnce(t *testing.T) {
	t.Parallel()
	r := twoVersions(t)
	r.put("versions/v1/script", []byte("hello"), 0o755)
	r.put("versions/v1/file", []byte("hello"), 0o644)
	r.put("versions/v1/file-2", []byte("hello"), 0o644)
	r.put("versions/v1/gone/deep", []byte("hello"), 0o644)
	r.link("versions/v1/link", "file")
	r.link("versions/v1/link-2", "file")
	v := verifier(t, r)
	found, err := v.All(t.Context())
	require.NoError(t, err)
	require.Empty(t, found)

	r.put("manager.json", []byte("HELLO"), 0o644)
	r.remove("versions/v0", "versions/v1/gone", "versions/v1/link", "versions/v1/link-2", "versions/v1/file", "versions/v1/file-2")
	r.put("versions/v1/data-2", []byte("jello"), 0o644)
	r.put("versions/v1/data/genesis.json", []byte("hello!"), 0o644)
	r.put("versions/v1/script", []byte("hello"), 0o644)
	r.link("versions/v1/file", "data-2")
	require.NoError(t, os.Mkdir(filepath.Join(r.root, "versions/v1/file-2"), 0o755))
	r.link("versions/v1/link", "data-2")
	r.put("versions/v1/link-2", []byte("hello"), 0o644)
	r.put("versions/v1/new", nil, 0o644)
	r.put("versions/v1/more/new", nil, 0o644)
	r.put("versions/v2/rollup", nil, 0o755)
	found, err = v.All(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{
		": manager.json has the sha256 3733cd977ff8eb18b987357e22ced99f46097f31ecb239e878ae63760e83e4d5, and had " + sumHello,
		"v0: versions/v0 is missing",
		"v1: versions/v1/data-2 has the sha256 " + sumJello + ", and had " + sumHello,
		"v1: versions/v1/data/genesis.json has 6 bytes, and had 5",
		"v1: versions/v1/file is a symbolic link, and was a regular file",
		"v1: versions/v1/file-2 is missing",
		"v1: versions/v1/gone/deep is missing",
		"v1: versions/v1/link is a link to data-2, and was one to file",
		"v1: versions/v1/link-2 is a regular file, and was a symbolic link to file",
		"v1: versions/v1/script is no longer executable",
		"extra v1: versions/v1/more/new is not in the manifest",
		"extra v1: versions/v1/new is not in the manifest",
		"v2: versions/v2 is not in the manifest",
	}, differences(r, found))
	for _, d := range found {
		assert.NotEmpty(t, d.Next, d.What)
	}
}

// Some nodes write a cache beside their config: it comes, changes and goes.
func TestFileThatTheProgramWritesIsNeitherMissedNorReported(t *testing.T) {
	t.Parallel()
	r := twoVersions(t)
	r.put("versions/v0/cache", []byte("1"), 0o644)
	v := verifier(t, r) // one that recorded it
	v.Skip = func(name string) bool { return name == "cache" }
	for _, change := range []func(){
		func() { r.put("versions/v0/cache", []byte("22"), 0o644) },
		func() { r.remove("versions/v0/cache") },
		func() { r.put("versions/v1/cache", nil, 0o644) },
	} {
		change()
		found, err := v.All(t.Context())
		require.NoError(t, err)
		assert.Empty(t, found)
	}
}

func TestVersionThatIsReplacedByALinkIsFound(t *testing.T) {
	t.Parallel()
	r := twoVersions(t)
	v := verifier(t, r)
	require.NoError(t, os.Rename(filepath.Join(r.root, "versions/v0"), filepath.Join(r.root, "elsewhere")))
	r.link("versions/v0", "../elsewhere")
	found, err := v.Version(t.Context(), "v0", false)
	require.NoError(t, err)
	assert.Equal(t, []string{"v0: cannot read the version: versions/v0 is a symbolic link, want a folder"}, differences(r, found))
	found, err = v.Version(t.Context(), "v7", false)
	require.NoError(t, err)
	assert.Equal(t, []string{"v7: versions/v7 is not in the manifest"}, differences(r, found))
}

func TestFileThatCannotBeReadIsADifference(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		// Root reads everything, but not a file that is locked away by its mode on NFS, nor a disk that fails.
		v := verifier(t, twoVersions(t))
		c := comparison{v: v, version: "v0", folder: t.TempDir()}
		info, err := os.Stat(filepath.Join(v.Root, "versions/v0/rollup"))
		require.NoError(t, err)
		require.NoError(t, c.file(t.Context(), v.Manifest.Versions[0].Files[1], info))
		require.Len(t, c.found, 1)
		assert.Contains(t, c.found[0].What, "cannot be read: open ")
		return
	}
	r := twoVersions(t)
	v := verifier(t, r)
	require.NoError(t, os.Chmod(filepath.Join(r.root, "versions/v0/rollup"), 0o100))
	found, err := v.Version(t.Context(), "v0", false)
	require.NoError(t, err)
	require.Len(t, found, 1)
	assert.Contains(t, found[0].What, "permission denied")
}

func TestDigestIsRememberedForAsLongAsTheFileIsTheSame(t *testing.T) {
	t.Parallel()
	r := twoVersions(t)
	v := verifier(t, r)
	name := filepath.Join(r.root, "versions/v0/rollup")
	digest := func(fresh bool) string {
		sum, err := v.digest(t.Context(), name, 0, fresh)
		require.NoError(t, err)
		return sum
	}
	// remember waits until the file has not been changed just now, and plants a digest that no reading gives.
	remember := func() {
		require.Eventually(t, func() bool { return digest(true) != "" && len(v.hashes.known) == 1 }, time.Minute, time.Millisecond)
		for key, known := range v.hashes.known {
			known.hex = "remembered"
			v.hashes.known[key] = known
		}
	}
	remember()
	assert.Equal(t, "remembered", digest(false))
	require.NoError(t, os.Link(name, name+"-2"))
	assert.Equal(t, sumHello, digest(false), "a new name changes the file's ctime")
	remember()
	other, err := v.Digest(t.Context(), name+"-2")
	require.NoError(t, err)
	assert.Equal(t, "remembered", other, "by any name")
	assert.Equal(t, sumHello, digest(true), "read because it was asked to be")

	for what, change := range map[string]func(){
		"written": func() { r.put("versions/v0/rollup", []byte("jello"), 0o755) },
		"written, with its old time": func() {
			info, err := os.Stat(name)
			require.NoError(t, err)
			r.put("versions/v0/rollup", []byte("hello"), 0o755)
			require.NoError(t, os.Chtimes(name, info.ModTime(), info.ModTime()))
		},
		"replaced": func() { r.remove("versions/v0/rollup"); r.put("versions/v0/rollup", []byte("hello"), 0o755) },
	} {
		remember()
		change()
		assert.NotEqual(t, "remembered", digest(false), what)
		v.hashes.known = nil
	}
}

// The kernel's clock ticks: who writes twice within a tick leaves one stamp.
func TestDigestOfAFileThatHasJustChangedIsNotRemembered(t *testing.T) {
	t.Parallel()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	defer file.Close()
	_, err = file.WriteString("hello")
	require.NoError(t, err)
	_, err = file.Seek(0, 0)
	require.NoError(t, err)
	info, err := file.Stat()
	require.NoError(t, err)
	h, err := hashOpen(t.Context(), file)
	require.NoError(t, err)
	assert.Equal(t, sumHello, h.hex)
	if time.Since(info.ModTime()) < tick { // on a machine that is not that busy
		assert.False(t, h.settled)
	}
}

// changing is a context that changes a file when it is asked for the first time, and ends later.
type changing struct {
	context.Context
	asked  int
	change func()
	end    int
}

func (c *changing) Err() error {
	if c.asked++; c.asked == 1 && c.change != nil {
		c.change()
	}
	if c.asked == c.end {
		return context.Canceled
	}
	return nil
}

// On a file system that keeps whole seconds a file may change again in the second in which it was read.
func TestFileWhoseTimeIsAWholeSecondSettlesLater(t *testing.T) {
	changed := func(ago time.Duration, nanoseconds int64) Identity {
		return Identity{changed: unix.Timespec{Sec: time.Now().Add(-ago).Unix(), Nsec: nanoseconds}}
	}
	assert.True(t, changed(2*time.Second, 1).Settled())
	assert.False(t, changed(0, 0).Settled())
	assert.True(t, changed(4*time.Second, 0).Settled())
}

func TestDigestOfAFileThatChangesWhileItIsReadIsNotRemembered(t *testing.T) {
	t.Parallel()
	r := twoVersions(t)
	v := verifier(t, r)
	name := filepath.Join(r.root, "versions/v0/rollup")
	require.Eventually(t, func() bool {
		_, err := v.digest(t.Context(), name, 0, true)
		return err == nil && len(v.hashes.known) == 1
	}, time.Minute, time.Millisecond)
	_, err := v.digest(&changing{Context: t.Context(), change: func() { r.put("versions/v0/rollup", []byte("jello"), 0o755) }}, name, 0, true)
	require.NoError(t, err)
	assert.Empty(t, v.hashes.known)
}

// Between the look at it and its reading a file may become a link, to a file that has the same content now.
func TestLinkThatTakesThePlaceOfAFileIsNotFollowed(t *testing.T) {
	t.Parallel()
	r := twoVersions(t)
	v := verifier(t, r)
	version, _ := v.Manifest.Version("v0")
	folder := filepath.Join(r.root, "versions", "v0")
	for _, f := range version.Files {
		before, err := os.Lstat(filepath.Join(folder, f.Path))
		require.NoError(t, err)
		require.NoError(t, os.Rename(filepath.Join(folder, f.Path), filepath.Join(r.root, "elsewhere")))
		require.NoError(t, os.Symlink(filepath.Join(r.root, "elsewhere"), filepath.Join(folder, f.Path)))
		c := comparison{v: v, version: "v0", folder: folder}
		require.NoError(t, c.file(t.Context(), f, before))
		require.Len(t, c.found, 1, f.Path)
		assert.Contains(t, c.found[0].What, "cannot be read: open ")
	}
	require.NotEmpty(t, version.Files)
}

func TestReadingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	r := twoVersions(t)
	v := verifier(t, r)
	r.put("large", make([]byte, 4*hashChunk), 0o644)
	ctx := &changing{Context: t.Context(), end: 3}
	_, err := v.Digest(ctx, filepath.Join(r.root, "large"))
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, 3, ctx.asked, "in the middle of the file")

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = RecordManifest(ended, r.root, RecordOptions{})
	require.ErrorIs(t, err, context.Canceled)
	for _, verify := range []func() ([]Problem, error){
		func() ([]Problem, error) { return v.Version(ended, "v0", false) },
		func() ([]Problem, error) { return v.Files(ended) },
		func() ([]Problem, error) { return v.All(ended) },
	} {
		found, err := verify()
		require.ErrorIs(t, err, context.Canceled)
		assert.Empty(t, found)
	}
}

func TestFileIsLocatedByItsNameAndByWhereItsLinksLead(t *testing.T) {
	t.Parallel()
	r := twoVersions(t)
	v := verifier(t, r)
	outside := filepath.Join(t.TempDir(), "outside")
	require.NoError(t, os.Symlink(filepath.Join(r.root, "versions/v0/rollup"), outside))
	alias := filepath.Join(t.TempDir(), "alias")
	require.NoError(t, os.Symlink(r.root, alias))
	r.link("versions/v0/away", "/etc/hostname")
	for name, want := range map[string][]Location{
		r.root + "/versions/v0/rollup":         {{"v0", "rollup"}},
		r.root + "/./versions/v1/../v0/rollup": {{"v0", "rollup"}},
		alias + "/versions/v1/genesis.json":    {{"v1", "genesis.json"}, {"v1", "data/genesis.json"}},
		outside:                                {{"v0", "rollup"}},
		r.root + "/versions/v0/away":           {{"v0", "away"}},
		r.root + "/manager.json":               {{"", "manager.json"}},
		r.root + "/versions/v9/none":           {{"v9", "none"}},
		r.root + "-2/versions/v0/rollup":       nil,
		"/etc/hostname":                        nil,
	} {
		assert.Equal(t, want, v.Locate(name), name)
	}
	v.Root = alias
	assert.Equal(t, []Location{{"v0", "rollup"}}, v.Locate(outside))
	assert.True(t, v.Has(Location{"v0", "rollup"}))
	assert.True(t, v.Has(Location{"", "manager.json"}))
	assert.False(t, v.Has(Location{"v0", "away"}))
	assert.False(t, v.Has(Location{"v9", "rollup"}))
	assert.True(t, v.Covers(Location{"", "manager.json"}))
	assert.False(t, v.Covers(Location{"", "other.json"}))
}

// A text is refused with a reason, or it is a manifest, which says the same when it was written and read again. Of a
// part of it nothing is read.
func FuzzManifest(f *testing.F) {
	r := root{&Place{root: f.TempDir()}, nil}
	for _, name := range []string{"versions/v0", "versions/v1/data"} {
		if err := os.MkdirAll(filepath.Join(r.root, name), 0o755); err != nil {
			f.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(r.root, name, "rollup"), static(), 0o755); err != nil {
			f.Fatal(err)
		}
	}
	m, err := RecordManifest(f.Context(), r.root, RecordOptions{Labels: map[string]string{"revision": "0a1b2c3"}})
	if err != nil {
		f.Fatal(err)
	}
	whole, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte(`{"schema":1,"labels":{"versions":"x"},"versions":[{"name":"a","files":[{"path":"b","link":"c"}]}]}`))
	f.Add([]byte(`{"schema":1,"schema":1}`))
	f.Add([]byte(`{"schemaVersion":2}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseManifest(text)
		if err != nil {
			if m != nil || err.Error() == "" {
				t.Fatalf("%q is refused as %v with %v", text, m, err)
			}
			return
		}
		once, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseManifest(once)
		if err != nil {
			t.Fatalf("%q was written as %q, and is refused: %s", text, once, err)
		}
		twice, err := again.encode()
		if err != nil || string(once) != string(twice) {
			t.Fatalf("%q was written as %q and then as %q, %v", text, once, twice, err)
		}
		for _, v := range m.Versions {
			for _, file := range v.Files {
				if !filepath.IsLocal(file.Path) || !filepath.IsLocal(filepath.Join("versions", v.Name, file.Path)) {
					t.Fatalf("%q leads out with %q of %q", text, file.Path, v.Name)
				}
			}
		}
		if _, err := parseManifest(text[:len(text)/2]); err == nil {
			t.Fatalf("half of %q is a manifest too", text)
		}
	})
}
