package images

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Problem is something that is wrong with a file: it keeps a program from running, or does not match the manifest.
type Problem struct {
	// Version is the name of the version's folder, and Path the file in it, both as the manifest has them; empty for a
	// program that is checked by itself. A file beside the folders has no Version.
	Version, Path string
	// What is wrong, which names the file, and what to do next.
	What, Next string
	// Sure: the program cannot run, or is not what was recorded. If it is false all may be well, because files do not show
	// everything.
	Sure bool
}

// machine is how the files of an architecture are marked, and where Debian keeps its libraries.
type machine struct {
	arch        string
	machine     uint16
	class, data byte
	triple      string
}

var machines = []machine{
	{"amd64", 62, class64, littleEndian, "x86_64-linux-gnu"},
	{"arm64", 183, class64, littleEndian, "aarch64-linux-gnu"},
	{"386", 3, class32, littleEndian, "i386-linux-gnu"},
	{"arm", 40, class32, littleEndian, "arm-linux-gnueabihf"},
	{"riscv64", 243, class64, littleEndian, "riscv64-linux-gnu"},
	{"ppc64le", 21, class64, littleEndian, "powerpc64le-linux-gnu"},
	{"s390x", 22, class64, bigEndian, "s390x-linux-gnu"},
	{"loong64", 258, class64, littleEndian, "loongarch64-linux-gnu"},
}

// Check finds everything that keeps the program at path from running in the place. The caller has checked that it is a
// regular file that may be executed. A static program for the right machine has no problem. Check may be called by several
// goroutines.
func (p *Place) Check(path string) []Problem { return p.check(path, 0) }

// check is Check for a program that was found by following depth #! lines.
func (p *Place) check(path string, depth int) []Problem {
	file, size, err := p.open(path)
	if err != nil {
		// A file can be executed even if it cannot be read.
		return []Problem{{Sure: !errors.Is(err, fs.ErrPermission), What: fmt.Sprintf("%s cannot be read: %s", path, err), Next: "make it readable for this user"}}
	}
	defer file.Close()
	prog, err := readELF(file, size)
	switch {
	case errors.Is(err, errNotELF):
		head := make([]byte, scriptLimit)
		n, _ := file.ReadAt(head, 0)
		return p.checkScript(path, string(head[:n]), depth)
	case err != nil:
		return []Problem{sure(path+" is broken: "+err.Error(), "copy it again from where it was built, and compare the two with sha256sum")}
	}
	return p.checkELF(path, prog)
}

// sure is a problem with which the program cannot run.
func sure(what, next string) Problem { return Problem{What: what, Next: next, Sure: true} }

func (p *Place) checkELF(path string, prog program) []Problem {
	if prog.kind != typeExec && prog.kind != typeDyn {
		return []Problem{sure(path+" is an object file or a core dump, not a program", "name the program itself")}
	}
	if what := p.wrongMachine(prog); what != "" {
		return []Problem{sure(path+" "+what, "build it for "+p.arch()+", or use the image that was built for this machine (docker build --platform linux/"+p.arch()+")")}
	}
	if prog.interpreter == "" {
		if len(prog.needed) > 0 {
			return []Problem{sure(path+" is a shared library, not a program: it names no loader", "name the program itself")}
		}
		return nil
	}
	if problem, bad := p.checkLoader(path, prog); bad {
		return []Problem{problem}
	}
	return p.checkLibraries(path, prog)
}

func (p *Place) arch() string {
	return cmp.Or(p.goarch, runtime.GOARCH)
}

// wrongMachine says which machine the program was built for, if it is not that of the place.
func (p *Place) wrongMachine(prog program) string {
	ours := p.machine()
	if ours.arch == "" || prog.machine == ours.machine && prog.class == ours.class && prog.data == ours.data {
		return ""
	}
	for _, m := range machines {
		if prog.machine == m.machine && prog.class == m.class && prog.data == m.data {
			return fmt.Sprintf("was built for %s, and this machine is %s", m.arch, ours.arch)
		}
	}
	return fmt.Sprintf("was built for another machine (number %d of elf(5)), and this one is %s", prog.machine, ours.arch)
}

// machine is that of the place; empty if we do not know it.
func (p *Place) machine() machine {
	for _, m := range machines {
		if m.arch == p.arch() {
			return m
		}
	}
	return machine{}
}

// checkLoader looks for the dynamic loader. If it is missing, the kernel says that there is no such file as the program.
func (p *Place) checkLoader(path string, prog program) (problem Problem, bad bool) {
	loader := prog.interpreter
	file, size, err := p.open(loader)
	if errors.Is(err, fs.ErrNotExist) {
		what := fmt.Sprintf(`%s needs the dynamic loader %s, which does not exist: the kernel would report "no such file or directory" for the program`, path, loader)
		return sure(what, p.otherImage(loader)), true
	}
	if err != nil {
		return sure(fmt.Sprintf("%s needs the dynamic loader %s, which cannot be used: %s", path, loader, err), p.otherImage(loader)), true
	}
	defer file.Close()
	if p.executable(loader) != nil {
		return sure(fmt.Sprintf("%s needs the dynamic loader %s, which is not executable", path, loader), "make it executable: chmod 755 "+loader), true
	}
	of, err := readELF(file, size)
	what := ""
	if err != nil {
		what = "is broken: " + err.Error()
	} else {
		what = p.wrongMachine(of)
	}
	if what != "" {
		return sure(fmt.Sprintf("%s needs the dynamic loader %s, which %s", path, loader, what), p.otherImage(loader)), true
	}
	return Problem{}, false
}

// otherImage says where a program with this loader can run.
func (p *Place) otherImage(loader string) string {
	switch {
	case strings.HasPrefix(loader, "/nix/"):
		return "it was built by Nix: copy its whole closure into the image, or build it static"
	case isMusl(loader):
		return "it was built for musl: use an image that has it (alpine), or build it static"
	case p.hasMusl():
		return "it was built for glibc, and the image has musl: use an image with glibc (debian:bookworm-slim), or build it for musl or static"
	}
	return "it was built for glibc: use an image that has it (debian:bookworm-slim), or build it static"
}

func isMusl(loader string) bool { return strings.HasPrefix(filepath.Base(loader), "ld-musl-") }

// hasMusl reports whether the place has the loader of musl, as Alpine has.
func (p *Place) hasMusl() bool {
	entries, _ := os.ReadDir(p.root + "/lib")
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool { return isMusl(e.Name()) })
}
