package images

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"rollup-entrypoint/internal/durable"
	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/internal/regularfile"
	"rollup-entrypoint/internal/strictjson"
)

// manifestSchema is the form of the manifest that this program writes, and the newest that it reads.
const manifestSchema = 1

// manifestLimit is the largest manifest that is read, in bytes: some fifty thousand files.
const manifestLimit = 16 << 20

// Manifest is the content of an image, file by file: what "entrypoint manifest write" records when the image is built.
// It does not say when and where that was, so two builds of the same files give the same bytes.
type Manifest struct {
	// Schema is the form of the file, 1.
	Schema int `json:"schema"`
	// Labels are what the build says about itself, such as org.opencontainers.image.revision.
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

// RecordedFile is a regular file or, if Link is set, a symbolic link.
type RecordedFile struct {
	// Path is relative to the folder, with slashes.
	Path string `json:"path"`
	// Size is in bytes, SHA256 in hex. A link has neither.
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"`
	// Executable: somebody may execute the file.
	Executable bool `json:"executable,omitempty"`
	// Link is the target of a symbolic link, as in the link.
	Link string `json:"link,omitempty"`
}

// manifestShape is that of the file. Manifests of earlier versions of this program describe each program under "elf".
var manifestShape = strictjson.Shape{
	Name: "manifest", Optional: []string{"schema", "labels", "files", "versions"},
	Within: []strictjson.Shape{{Name: "labels"}},
	Lists:  []strictjson.Shape{fileShape, {Name: "versions", Optional: []string{"name", "files"}, Lists: []strictjson.Shape{fileShape}}},
}

var fileShape = strictjson.Shape{Name: "files", Optional: []string{"path", "size", "sha256", "executable", "elf", "link"}}

// encode gives the text of the file: the same bytes for the same content.
func (m *Manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // a label may be an address with & in it
	enc.SetIndent("", "  ")
	if err := enc.Encode(m); err != nil {
		return nil, fmt.Errorf("cannot write the manifest as JSON: %w", err)
	}
	return b.Bytes(), nil
}

// WriteManifest replaces the file at name with the manifest. When it returns nil that is durable; after an error the
// file is either the old or the new one, whole. It needs no other directory than that of the file.
func WriteManifest(name string, m *Manifest) error {
	text, err := m.encode()
	if err != nil {
		return err
	}
	// Whatever the umask of the build is: the same file, and the user of the container must be able to read it.
	readable := func(file *os.File) error { return file.Chmod(0o644) }
	if err := durable.Replace(name, text, readable); err != nil {
		return fmt.Errorf("cannot write the manifest: %w", err)
	}
	return nil
}

// ReadManifest reads the file at name strictly: if it is torn, empty or foreign the error names the file. If there is
// no file the error is fs.ErrNotExist.
func ReadManifest(name string) (*Manifest, error) {
	text, err := regularfile.Read(name, manifestLimit)
	if err != nil {
		return nil, fmt.Errorf("cannot read the manifest: %w", err)
	}
	m, err := parseManifest(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// parseManifest reads the text of a manifest strictly. The error is one line, and has no values of the text but names
// of files.
func parseManifest(text []byte) (*Manifest, error) {
	r := strictjson.NewReader(text)
	whole, ok := r.Document()
	if !ok {
		return nil, errors.New(r.Problems[0])
	}
	var form struct {
		Schema int `json:"schema"`
	}
	// A newer program may have written other keys, so this comes first.
	if json.Unmarshal(whole.Raw, &form) == nil && form.Schema > manifestSchema {
		return nil, fmt.Errorf("its schema is %d, and this program knows %d: a newer entrypoint has written it", form.Schema, manifestSchema)
	}
	manifestShape.Check(r, whole)
	var m Manifest
	var wrong *json.UnmarshalTypeError
	if err := json.Unmarshal(whole.Raw, &m); errors.As(err, &wrong) {
		r.Problem(whole.At+int(wrong.Offset), "%s has the wrong type", wrong.Field)
	} else if err != nil {
		r.Problem(whole.At, "it cannot be read as one")
	}
	if len(r.Problems) > 0 {
		return nil, fmt.Errorf("the file is not a manifest: %s", r.Problems[0])
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("the file is not a manifest: %w", err)
	}
	return &m, nil
}

// check finds values that no entrypoint writes.
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
			return fmt.Errorf("version %q: that is not the name of a folder", v.Name)
		case i > 0 && v.Name <= m.Versions[i-1].Name:
			return fmt.Errorf("version %q comes after %q: they are not sorted", v.Name, m.Versions[i-1].Name)
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
			return fmt.Errorf("%s: %q is not a path below its folder", where, f.Path)
		case i > 0 && f.Path <= files[i-1].Path:
			return fmt.Errorf("%s: %q comes after %q: they are not sorted", where, f.Path, files[i-1].Path)
		case f.Link != "" && (f.SHA256 != "" || f.Size != 0 || f.Executable):
			return fmt.Errorf("%s: %q is a link and a file", where, f.Path)
		case f.Link == "" && (len(f.SHA256) != 64 || strings.Trim(f.SHA256, "0123456789abcdef") != ""):
			return fmt.Errorf("%s: %q: its sha256 is not 64 digits of hex", where, f.Path)
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

// Extent says how much the manifest covers.
func (m *Manifest) Extent() string {
	files, bytes := 0, int64(0)
	for _, list := range append([]RecordedVersion{{Files: m.Files}}, m.Versions...) {
		for _, f := range list.Files {
			files++
			bytes += f.Size
		}
	}
	return fmt.Sprintf("%s, %s, %d bytes", plain.Count(len(m.Versions), "version"), plain.Count(files, "file"), bytes)
}
