package images

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/renameio/v2"
)

// manifestSchema is the form of the manifest that this program writes, and the newest that it reads.
const manifestSchema = 1

// manifestLimit bounds, in bytes, what is read as a manifest: some fifty thousand files.
const manifestLimit = 16 << 20

// Manifest is what lies in an image, file by file: what "entrypoint manifest write" records when the image is built. It
// says nothing of when and where that was, so two builds of the same files give the same bytes.
type Manifest struct {
	// Schema is the form of the file, 1.
	Schema int `json:"schema"`
	// Labels are what the build says of itself, as org.opencontainers.image.revision.
	Labels map[string]string `json:"labels"`
	// Files are those beside the folders of the versions.
	Files []RecordedFile `json:"files"`
	// Versions are the folders of the versions, sorted by name.
	Versions []RecordedVersion `json:"versions"`
}

// RecordedVersion is the folder of a version.
type RecordedVersion struct {
	// Name is that of the folder.
	Name string `json:"name"`
	// Files are all files and symbolic links in it, sorted by path.
	Files []RecordedFile `json:"files"`
}

// RecordedFile is a regular file or, where Link is set, a symbolic link.
type RecordedFile struct {
	// Path is relative to the folder, with slashes.
	Path string `json:"path"`
	// Size is in bytes, SHA256 in hex; both are those of the file, and of a link there are none.
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"`
	// Executable: somebody may execute the file.
	Executable bool `json:"executable,omitempty"`
	// ELF is what the kernel and the loader will ask of a program; nil where the file is none.
	ELF *RecordedELF `json:"elf,omitempty"`
	// Link is where a symbolic link leads, as it stands in the link.
	Link string `json:"link,omitempty"`
}

// RecordedELF is what an ELF program asks for. Its digest covers it; it is there to be read.
type RecordedELF struct {
	// Machine is the architecture as GOARCH has it, or "elf-N" with the number of elf(5).
	Machine string `json:"machine"`
	// Class is 32 or 64.
	Class int `json:"class"`
	// Interpreter is the dynamic loader, empty for a static program.
	Interpreter string `json:"interpreter,omitempty"`
	// Needed are the libraries, in the order of the file.
	Needed []string `json:"needed,omitempty"`
}

// manifestKeys are the keys of an object by the key under which it, or the list of it, stands; any where there is no row.
var manifestKeys = map[string][]string{
	"":         {"schema", "labels", "files", "versions"},
	"versions": {"name", "files"},
	"files":    {"path", "size", "sha256", "executable", "elf", "link"},
	"elf":      {"machine", "class", "interpreter", "needed"},
}

// Encode gives the text of the file: the same bytes for the same content.
func (m *Manifest) Encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // a label may be an address with & in it
	enc.SetIndent("", "  ")
	if err := enc.Encode(m); err != nil {
		return nil, fmt.Errorf("cannot write the manifest as JSON: %w", err)
	}
	return b.Bytes(), nil
}

// WriteManifest replaces the file at name by the manifest. When it returns nil that is durable; after an error the file is
// either the old or the new one, whole. It needs no directory but that of the file.
func WriteManifest(name string, m *Manifest) error {
	text, err := m.Encode()
	if err != nil {
		return err
	}
	dir := filepath.Dir(name)
	// Whatever the umask of the build is: the same file, and the user of the container must be able to read it.
	file, err := renameio.NewPendingFile(name, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o644))
	if err != nil {
		return fmt.Errorf("cannot write the manifest in %s: %w", dir, err)
	}
	defer file.Cleanup() //nolint:errcheck // after a rename there is nothing to clean up
	if _, err := file.Write(text); err != nil {
		return fmt.Errorf("cannot write the manifest in %s: %w", dir, err)
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("cannot write the manifest %s: %w", name, err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot open the directory of the manifest: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("cannot make the manifest durable in %s: %w", dir, err)
	}
	return nil
}

// ReadManifest reads the file at name strictly: what is torn, empty or foreign is an error that names the file. Where there is no file the error is fs.ErrNotExist.
func ReadManifest(name string) (*Manifest, error) {
	file, size, err := (&Place{}).open(name)
	if err != nil {
		if errors.Is(err, errNotRegular) {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return nil, fmt.Errorf("cannot read the manifest: %w", err)
	}
	defer file.Close()
	if size > manifestLimit {
		return nil, fmt.Errorf("%s has %d bytes: that is no manifest", name, size)
	}
	text, err := io.ReadAll(io.LimitReader(file, manifestLimit))
	if err != nil {
		return nil, fmt.Errorf("cannot read the manifest %s: %w", name, err)
	}
	m, err := ParseManifest(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// ParseManifest reads the text of a manifest strictly.
func ParseManifest(text []byte) (*Manifest, error) {
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return nil, errors.New("the file is empty")
	case bytes.IndexByte(text, 0) >= 0:
		return nil, errors.New("the file is torn: it has NUL bytes, as after a power cut")
	case !utf8.Valid(text):
		return nil, errors.New("the file is no manifest: it is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	var whole json.RawMessage
	if err := dec.Decode(&whole); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errors.New("the file is torn: it ends in the middle of the JSON text")
		}
		return nil, fmt.Errorf("the file is no manifest: %w", err)
	}
	if rest := bytes.TrimSpace(text[dec.InputOffset():]); len(rest) > 0 {
		return nil, fmt.Errorf("the file goes on after the manifest: %.20q", rest)
	}
	if whole[0] != '{' {
		return nil, errors.New("the file is no manifest: it is no JSON object")
	}
	var form struct {
		Schema int `json:"schema"`
	}
	// What a newer program has written may well have other keys: so this comes first.
	if json.Unmarshal(whole, &form) == nil && form.Schema > manifestSchema {
		return nil, fmt.Errorf("its schema is %d, and this program knows %d: a newer entrypoint has written it", form.Schema, manifestSchema)
	}
	if err := checkManifestKeys(json.NewDecoder(bytes.NewReader(whole)), ""); err != nil {
		return nil, fmt.Errorf("the file is no manifest: %w", err)
	}
	var m Manifest
	if err := json.Unmarshal(whole, &m); err != nil {
		return nil, fmt.Errorf("the file is no manifest: %w", err)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("the file is no manifest: %w", err)
	}
	return &m, nil
}

// checkManifestKeys finds keys that are unknown, and those that stand twice, of which the JSON decoder would take the last
// one. dec stands before a value, whose text is valid, under the key.
func checkManifestKeys(dec *json.Decoder, under string) error {
	token, _ := dec.Token()
	delim, _ := token.(json.Delim)
	seen := map[string]bool{}
	for delim != 0 && dec.More() {
		next := under // in a list
		if delim == '{' {
			token, _ := dec.Token()
			key, _ := token.(string)
			known := manifestKeys[under]
			switch {
			case seen[key]:
				return fmt.Errorf("key %q stands twice", key)
			case known != nil && !slices.Contains(known, key):
				return fmt.Errorf("unknown key %q", key)
			}
			seen[key], next = true, key
		}
		if err := checkManifestKeys(dec, next); err != nil {
			return err
		}
	}
	if delim != 0 {
		_, _ = dec.Token() // its end
	}
	return nil
}

// check finds values that no entrypoint wrote.
func (m *Manifest) check() error {
	switch {
	case m.Schema != manifestSchema:
		return fmt.Errorf("its schema is %d, want %d", m.Schema, manifestSchema)
	case len(m.Versions) == 0:
		return errors.New("it has no version")
	}
	if err := checkFiles(m.Files, "files"); err != nil {
		return err
	}
	for i, v := range m.Versions {
		switch {
		case !filepath.IsLocal(v.Name) || path.Base(v.Name) != v.Name || v.Name == ".":
			return fmt.Errorf("version %q: that is no name of a folder", v.Name)
		case i > 0 && v.Name <= m.Versions[i-1].Name:
			return fmt.Errorf("version %q stands behind %q: they are not sorted", v.Name, m.Versions[i-1].Name)
		case len(v.Files) == 0:
			return fmt.Errorf("version %q has no file", v.Name)
		}
		if err := checkFiles(v.Files, fmt.Sprintf("version %q", v.Name)); err != nil {
			return err
		}
	}
	return nil
}

func checkFiles(files []RecordedFile, where string) error {
	for i, f := range files {
		switch {
		case !filepath.IsLocal(f.Path) || path.Clean(f.Path) != f.Path || f.Path == ".":
			return fmt.Errorf("%s: %q is no path below its folder", where, f.Path)
		case i > 0 && f.Path <= files[i-1].Path:
			return fmt.Errorf("%s: %q stands behind %q: they are not sorted", where, f.Path, files[i-1].Path)
		case f.Link != "" && (f.SHA256 != "" || f.Size != 0 || f.Executable || f.ELF != nil):
			return fmt.Errorf("%s: %q is a link and a file", where, f.Path)
		case f.Link == "" && (len(f.SHA256) != 64 || strings.Trim(f.SHA256, "0123456789abcdef") != ""):
			return fmt.Errorf("%s: %q: its sha256 is %.70q, want 64 digits of hex", where, f.Path, f.SHA256)
		case f.Size < 0:
			return fmt.Errorf("%s: %q: its size is %d", where, f.Path, f.Size)
		}
	}
	return nil
}

// Version gives the folder of that name.
func (m *Manifest) Version(name string) (RecordedVersion, bool) {
	i, found := slices.BinarySearchFunc(m.Versions, name, func(v RecordedVersion, name string) int { return strings.Compare(v.Name, name) })
	if !found {
		return RecordedVersion{}, false
	}
	return m.Versions[i], true
}

// Count gives how many files the manifest has, and their bytes.
func (m *Manifest) Count() (files int, bytes int64) {
	add := func(list []RecordedFile) {
		for _, f := range list {
			files++
			bytes += f.Size
		}
	}
	add(m.Files)
	for _, v := range m.Versions {
		add(v.Files)
	}
	return files, bytes
}
