package images

import (
	"bytes"
	"debug/elf"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// What is written into an ELF file is read back. Of any other file no more is read than there is, and what debug/elf
// reads too, it reads likewise.
func FuzzELF(f *testing.F) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(true, false, uint16(62), "/lib64/ld-linux-x86-64.so.2", "libz.so.1 libc.so.6", "", "$ORIGIN", self[:min(len(self), 4096)])
	f.Add(false, true, uint16(8), "/lib/ld.so.1", "libc.so.6", "/opt/lib", "", elfText(ours()))
	f.Add(true, true, uint16(22), "", "", "", "", []byte("#!/bin/sh\n"))
	f.Fuzz(func(t *testing.T, wide, big bool, machine uint16, interpreter, needed, rpath, runpath string, foreign []byte) {
		for _, text := range []string{interpreter, needed, rpath, runpath} {
			if strings.Contains(text, "\x00") || len(text) > 1000 {
				return
			}
		}
		p := program{class: class32, data: littleEndian, machine: machine, kind: typeDyn, interpreter: interpreter, rpath: rpath, runpath: runpath}
		if wide {
			p.class = class64
		}
		if big {
			p.data = bigEndian
		}
		p.needed = append(p.needed, strings.Fields(needed)...)
		for i, library := range p.needed { // the words of it stand for the versions, too
			if i == 0 {
				p.wants, p.gives = map[string][]string{}, p.needed
			}
			p.wants[library] = p.needed[i:min(len(p.needed), i+3)]
		}
		if got, err := read(elfText(p)); err != nil || !reflect.DeepEqual(got, p) {
			t.Fatalf("%+v is read as %+v, %v", p, got, err)
		}
		checkForeign(t, foreign)
		checkForeign(t, append(elfText(p), foreign...))
		checkForeign(t, append(elfText(p)[:20], foreign...))
	})
}

// within fails a test for a reader that reads outside of its file.
type within struct {
	*bytes.Reader
	t *testing.T
}

func (w within) ReadAt(b []byte, at int64) (int, error) {
	if len(b) > headersLimit || at < 0 || at > 0 && at+int64(len(b)) > w.Size() {
		w.t.Fatalf("%d bytes at %d of a file of %d", len(b), at, w.Size())
	}
	return w.Reader.ReadAt(b, at)
}

func checkForeign(t *testing.T, text []byte) {
	t.Helper()
	p, err := readELF(within{bytes.NewReader(text), t}, int64(len(text)))
	if err != nil {
		return
	}
	theirs, err := elf.NewFile(bytes.NewReader(text))
	if err != nil {
		return // it looks at more than the loader does
	}
	if byte(theirs.Class) != p.class || byte(theirs.Data) != p.data || uint16(theirs.Machine) != p.machine || uint16(theirs.Type) != p.kind {
		t.Fatalf("read as %+v, by debug/elf as %+v", p, theirs.FileHeader)
	}
	interpreter := ""
	for _, segment := range theirs.Progs {
		if segment.Type == elf.PT_INTERP {
			name := make([]byte, segment.Filesz)
			_, _ = segment.ReadAt(name, 0)
			interpreter = cString(name)
			break
		}
	}
	if interpreter != p.interpreter {
		t.Fatalf("the loader is read as %q, by debug/elf as %q", p.interpreter, interpreter)
	}
}

// A #! line is taken apart as the kernel documents it: the interpreter is the first word, and all the rest one argument.
func FuzzScript(f *testing.F) {
	for _, seed := range []string{
		"#!/bin/sh\n", "#! /usr/bin/env  python3 -u \nmore", "#!/bin/sh", "#!", "#! \n", "#!/bin/sh\r\n", "#!\t/bin/awk\t-f\t\n",
		"#!" + strings.Repeat("/a", 200), "#!" + strings.Repeat(" ", 300), "#!/bin/sh \x00 -e\n", "plain text", "",
		"#!/usr/bin/env -S A=1 sh -e\n", "#!/usr/bin/env sh -e\n",
	} {
		f.Add([]byte(seed))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(dir, "script")
		if err := os.WriteFile(file, text, 0o755); err != nil {
			t.Fatal(err)
		}
		// In a root that is empty nothing can run but what is static, and everything that cannot says what to do.
		problems := (&Place{root: dir, Path: dir + "/bin"}).Check("/script")
		if bytes.HasPrefix(text, []byte(magic)) {
			return
		}
		if len(problems) != 1 || !problems[0].Sure || problems[0].What == "" || problems[0].Next == "" {
			t.Fatalf("%q: %+v", text, problems)
		}
		head, isScript := strings.CutPrefix(string(text[:min(len(text), scriptLimit)]), "#!")
		if !isScript {
			return
		}
		interpreter, argument, err := splitScript(head, len(text) >= scriptLimit)
		line, _, _ := strings.Cut(head, "\n")
		words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\x00", r) })
		switch {
		case err != nil:
		case len(words) == 0 || words[0] != interpreter:
			t.Fatalf("the interpreter of %q is read as %q", line, interpreter)
		case argument != strings.Trim(argument, " \t") || !strings.Contains(line, argument):
			t.Fatalf("the argument of %q is read as %q", line, argument)
		}
	})
}

// What is shipped on this machine is read as debug/elf reads it, which goes by the section headers.
func TestRealFilesAreReadAsDebugElfReadsThem(t *testing.T) {
	files := 0
	for _, pattern := range []string{"/usr/bin/*", "/usr/lib/*-linux-gnu*/*.so*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			file, size, err := (&Place{}).open(name)
			if err != nil {
				continue
			}
			theirs, err := elf.NewFile(file)
			if err == nil {
				files++
				p, err := readELF(file, size)
				if want := described(theirs); err != nil || !reflect.DeepEqual(p, want) {
					t.Errorf("%s is read as %+v, %v, by debug/elf as %+v", name, p, err, want)
				}
			}
			file.Close()
		}
	}
	if files == 0 {
		t.Fatalf("no program on this %s machine", runtime.GOARCH)
	}
}

// described is a program by debug/elf.
func described(f *elf.File) program {
	p := program{class: byte(f.Class), data: byte(f.Data), machine: uint16(f.Machine), kind: uint16(f.Type)}
	for _, segment := range f.Progs {
		if segment.Type == elf.PT_INTERP {
			name := make([]byte, segment.Filesz)
			_, _ = segment.ReadAt(name, 0)
			p.interpreter = cString(name)
		}
	}
	libraries, _ := f.ImportedLibraries()
	p.needed = append(p.needed, libraries...)
	rpath, _ := f.DynString(elf.DT_RPATH)
	runpath, _ := f.DynString(elf.DT_RUNPATH)
	p.rpath, p.runpath = strings.Join(rpath, ""), strings.Join(runpath, "")
	needs, _ := f.DynamicVersionNeeds()
	for _, need := range needs {
		for _, version := range need.Needs {
			if version.Flags&elf.VER_FLG_WEAK != 0 {
				continue
			}
			if p.wants == nil {
				p.wants = map[string][]string{}
			}
			p.wants[need.Name] = append(p.wants[need.Name], version.Dep)
		}
	}
	versions, _ := f.DynamicVersions()
	for _, version := range versions {
		p.gives = append(p.gives, version.Name)
	}
	return p
}
