package images

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Problem is something that keeps a program from running.
type Problem struct {
	// What is wrong and what to do next.
	What, Next string
	// Sure: the program cannot run. Where it is false the program may run all the same, because files do not tell
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

// Check finds all that keeps the program at path from running in the place: a regular file that may be executed, which
// the caller has seen. A static program of the right machine has no problem. It may be called by several goroutines.
func (p *Place) Check(path string) []Problem { return p.check(path, 0) }

// check is Check for a program that depth #! lines have led to.
func (p *Place) check(path string, depth int) []Problem {
	file, size, err := p.open(path)
	if err != nil {
		// To execute a file one need not be able to read it.
		return []Problem{{Sure: !errors.Is(err, fs.ErrPermission), What: fmt.Sprintf("%s cannot be looked into: %s", path, err), Next: "make it readable for this user"}}
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
		return []Problem{sure(path+" is an object file or a core dump, and no program", "name the program itself")}
	}
	if what := p.wrongMachine(prog); what != "" {
		return []Problem{sure(path+" "+what, "build it for "+p.arch()+", or take the image that was built for this machine (docker build --platform linux/"+p.arch()+")")}
	}
	if prog.interpreter == "" {
		if len(prog.needed) > 0 {
			return []Problem{sure(path+" is a shared library, and no program: it names no loader", "name the program itself")}
		}
		return nil
	}
	if problem, bad := p.checkLoader(path, prog); bad {
		return []Problem{problem}
	}
	return p.checkLibraries(path, prog)
}

func (p *Place) arch() string {
	if p.Arch != "" {
		return p.Arch
	}
	return runtime.GOARCH
}

// wrongMachine says for what machine the program was built, if it is another one than that of the place.
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

// machine is that of the place; nothing where it is one that we do not know.
func (p *Place) machine() machine {
	for _, m := range machines {
		if m.arch == p.arch() {
			return m
		}
	}
	return machine{}
}

// checkLoader looks for the dynamic loader. Without it the kernel says of the program itself that there is no such file.
func (p *Place) checkLoader(path string, prog program) (problem Problem, bad bool) {
	loader := prog.interpreter
	file, size, err := p.open(loader)
	if errors.Is(err, fs.ErrNotExist) {
		what := fmt.Sprintf(`%s needs the dynamic loader %s, which is not there: the kernel would say "no such file or directory" of the program`, path, loader)
		return sure(what, p.otherImage(loader)), true
	}
	if err != nil {
		return sure(fmt.Sprintf("%s needs the dynamic loader %s, and that cannot be used: %s", path, loader, err), p.otherImage(loader)), true
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
		return sure(fmt.Sprintf("%s needs the dynamic loader %s, and that %s", path, loader, what), p.otherImage(loader)), true
	}
	return Problem{}, false
}

// otherImage says where a program with this loader can run.
func (p *Place) otherImage(loader string) string {
	switch {
	case strings.HasPrefix(loader, "/nix/"):
		return "it was built by Nix: copy its whole closure into the image, or build it static"
	case isMusl(loader):
		return "it was built for musl: take an image that has it (alpine), or build it static"
	case p.hasMusl():
		return "it was built for glibc, and the image has musl: take an image with glibc (debian:bookworm-slim), or build it for musl or static"
	}
	return "it was built for glibc: take an image that has it (debian:bookworm-slim), or build it static"
}

func isMusl(loader string) bool { return strings.HasPrefix(filepath.Base(loader), "ld-musl-") }

// hasMusl reports whether the place has the loader of musl, as Alpine has.
func (p *Place) hasMusl() bool {
	dir, err := p.real("/lib")
	if err != nil {
		return false
	}
	entries, _ := os.ReadDir(dir)
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool { return isMusl(e.Name()) })
}
