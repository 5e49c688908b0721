package images

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// root is the root of an image, in a directory.
type root struct {
	*Place
	t *testing.T
}

func newRoot(t *testing.T) root {
	dir := t.TempDir()
	return root{&Place{root: dir, goarch: "amd64", Path: dir + "/usr/bin:" + dir + "/bin"}, t}
}

// put writes a file into the root.
func (r root) put(name string, text []byte, mode fs.FileMode) {
	r.t.Helper()
	file := filepath.Join(r.root, name)
	require.NoError(r.t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(r.t, os.WriteFile(file, text, mode))
	require.NoError(r.t, os.Chmod(file, mode))
}

func (r root) link(name, target string) {
	r.t.Helper()
	file := filepath.Join(r.root, name)
	require.NoError(r.t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(r.t, os.Symlink(target, file))
}

func (r root) script(name, line string) { r.put(name, []byte(line+"\n"), 0o755) }

// library is a library for the machine of the tests' programs.
func library(needed ...string) []byte {
	return elfText(program{class: class64, data: littleEndian, machine: 62, kind: typeDyn, needed: needed})
}

// static is a program that needs nothing.
func static() []byte {
	return elfText(program{class: class64, data: littleEndian, machine: 62, kind: typeExec})
}

// texts shows problems as a test wants to see them.
func texts(problems []Problem) []string {
	var all []string
	for _, p := range problems {
		all = append(all, fmt.Sprintf("%t: %s → %s", p.Sure, p.What, p.Next))
	}
	return all
}

func (r root) check(name string) []string {
	var all []string
	for _, text := range texts(r.Check(name)) {
		all = append(all, strings.ReplaceAll(text, r.Path, "/usr/bin:/bin"))
	}
	return all
}

// tool runs a program that builds another one. In CI it must be there.
func tool(t *testing.T, env []string, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("CI must have %s: %s", name, err)
		}
		t.Skipf("this test needs %s: %s", name, err)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// goProgram builds a program for a machine with the go tool.
func goProgram(t *testing.T, arch string) string {
	t.Helper()
	dir := t.TempDir()
	source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "program-"+arch)
	require.NoError(t, os.WriteFile(source, []byte("package main\n\nfunc main() { println(\"hello\") }\n"), 0o644))
	tool(t, []string{"CGO_ENABLED=0", "GOARCH=" + arch, "GOFLAGS="}, "go", "build", "-o", program, source)
	return program
}

// cProgram builds a program, and a library that it needs, with the C compiler of this machine.
func cProgram(t *testing.T, flags ...string) (dir, program string) {
	t.Helper()
	dir = t.TempDir()
	write := func(name, text string) string {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		return filepath.Join(dir, name)
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "lib"), 0o755))
	tool(t, nil, "gcc", "-shared", "-fPIC", "-o", filepath.Join(dir, "lib", "libanswer.so.1"), write("answer.c", "int answer(void) { return 42; }\n"))
	program = filepath.Join(dir, "program")
	args := append([]string{"-o", program, write("main.c", "int answer(void);\nint main(void) { return answer() != 42; }\n"), filepath.Join(dir, "lib", "libanswer.so.1")}, flags...)
	// Without a soname the library would be named by its path.
	tool(t, nil, "gcc", "-shared", "-fPIC", "-Wl,-soname,libanswer.so.1", "-o", filepath.Join(dir, "lib", "libanswer.so.1"), filepath.Join(dir, "answer.c"))
	tool(t, nil, "gcc", args...)
	return dir, program
}

func TestStaticProgramNeedsNothing(t *testing.T) {
	r := newRoot(t)
	text, err := os.ReadFile(goProgram(t, "amd64"))
	require.NoError(t, err)
	r.put("/rollup", text, 0o755)
	assert.Empty(t, r.check("/rollup"))
}

func TestProgramForAnotherMachineIsAnError(t *testing.T) {
	for _, test := range []struct{ arch, want string }{
		{"arm64", "was built for arm64, and this machine is amd64"},
		{"386", "was built for 386, and this machine is amd64"},
		{"ppc64", "was built for another machine (number 21 of elf(5)), and this one is amd64"},
	} {
		t.Run(test.arch, func(t *testing.T) {
			program := goProgram(t, test.arch)
			place := &Place{goarch: "amd64"}
			assert.Equal(t, []string{
				"true: " + program + " " + test.want + " → build it for amd64, or use the image that was built for this machine (docker build --platform linux/amd64)",
			}, texts(place.Check(program)))
			assert.Empty(t, (&Place{goarch: test.arch}).Check(program), "at home it runs")
		})
	}
	assert.Empty(t, (&Place{goarch: "mips"}).Check(goProgram(t, "arm64")), "of a machine that is not known nothing is said")
}

func TestProgramOfThisMachineRunsAndIsInOrder(t *testing.T) {
	for name, flags := range map[string][]string{
		"runpath": {"-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN/lib"},
		"rpath":   {"-Wl,--disable-new-dtags", "-Wl,-rpath,${ORIGIN}/lib"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, program := cProgram(t, flags...)
			tool(t, nil, program)
			assert.Empty(t, (&Place{}).Check(program))

			link := filepath.Join(t.TempDir(), "link")
			require.NoError(t, os.Symlink(program, link))
			tool(t, nil, link)
			assert.Empty(t, (&Place{}).Check(link), "the directory of the program is the real one")

			require.NoError(t, os.Remove(filepath.Join(dir, "lib", "libanswer.so.1")))
			problems := (&Place{}).Check(program)
			require.Len(t, problems, 1)
			assert.False(t, problems[0].Sure, "the loader reads a cache that we do not")
			assert.Equal(t, program+" needs libraries that are not found: libanswer.so.1", problems[0].What)
		})
	}
}

func TestLibraryPathIsSearched(t *testing.T) {
	dir, program := cProgram(t)
	require.Len(t, (&Place{}).Check(program), 1)
	tool(t, []string{"LD_LIBRARY_PATH=/nowhere:" + dir + "/lib"}, program)
	assert.Empty(t, (&Place{LibraryPath: "/nowhere:" + dir + "/lib"}).Check(program))
	assert.Empty(t, (&Place{LibraryPath: "/nowhere;" + dir + "/lib"}).Check(program))
}

// A program that was built on a newer system: the loader says "version `GLIBC_2.38' not found".
func TestLibraryThatIsOlderThanTheProgramIsFound(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		return filepath.Join(dir, name)
	}
	library, program := filepath.Join(dir, "libanswer.so.1"), filepath.Join(dir, "program")
	build := func(version string) {
		tool(t, nil, "gcc", "-shared", "-fPIC", "-Wl,-soname,libanswer.so.1", "-Wl,--version-script="+write("map", version+" { answer; };\n"),
			"-o", library, write("answer.c", "int answer(void) { return 42; }\n"))
	}
	build("ANSWER_2")
	tool(t, nil, "gcc", "-o", program, write("main.c", "int answer(void);\nint main(void) { return answer() != 42; }\n"), library, "-Wl,-rpath,$ORIGIN")
	tool(t, nil, program)
	assert.Empty(t, (&Place{}).Check(program))

	build("ANSWER_1")
	out, err := exec.Command(program).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "ANSWER_2", "the loader of this machine refuses it")
	assert.Equal(t, []string{
		"false: " + program + " was built for newer libraries: it needs ANSWER_2 of " + library + " → " +
			"use an image of the system that it was built on, or of a newer one, or build it on the system of the image",
	}, texts((&Place{}).Check(program)))
}

// The kernel says "no such file or directory" of the program itself, which is there.
func TestMissingLoaderIsToldAsSuch(t *testing.T) {
	_, program := cProgram(t)
	text, err := os.ReadFile(program)
	require.NoError(t, err)
	prog, err := read(text)
	require.NoError(t, err)
	loader := prog.interpreter
	require.NotEmpty(t, loader)
	r := newRoot(t)
	r.goarch = runtime.GOARCH
	r.put("/opt/rollup", text, 0o755)
	want := "true: /opt/rollup needs the dynamic loader " + loader + `, which does not exist: the kernel would report "no such file or directory" for the program → `
	assert.Equal(t, []string{want + "it was built for glibc: use an image that has it (debian:bookworm-slim), or build it static"}, r.check("/opt/rollup"))
	r.put("/lib/ld-musl-x86_64.so.1", library(), 0o755)
	assert.Equal(t, []string{want + "it was built for glibc, and the image has musl: use an image with glibc (debian:bookworm-slim), or build it for musl or static"}, r.check("/opt/rollup"))
}

func TestLoaderThatCannotBeUsedIsAnError(t *testing.T) {
	musl, nix := ours(), ours()
	musl.interpreter, nix.interpreter = "/lib/ld-musl-x86_64.so.1", "/nix/store/abc-glibc/lib/ld-linux-x86-64.so.2"
	foreign := ours()
	foreign.machine, foreign.interpreter = 183, ""
	for _, test := range []struct {
		name    string
		program program
		make    func(r root)
		want    string
	}{
		{"musl", musl, func(root) {}, "it was built for musl: use an image that has it (alpine), or build it static"},
		{"Nix", nix, func(root) {}, "it was built by Nix: copy its whole closure into the image, or build it static"},
		{"not executable", ours(), func(r root) { r.put(ours().interpreter, library(), 0o644) }, "which is not executable → make it executable: chmod 755 /lib64/ld-linux-x86-64.so.2"},
		{"a directory", ours(), func(r root) { r.put(ours().interpreter+"/x", nil, 0o644) }, "it is a directory, want a regular file"},
		{"torn", ours(), func(r root) { r.put(ours().interpreter, library()[:70], 0o755) }, "which is broken: its program headers cannot be read: it is cut off"},
		{"for another machine", ours(), func(r root) { r.put(ours().interpreter, elfText(foreign), 0o755) }, "which was built for arm64, and this machine is amd64"},
		{"a broken link", ours(), func(r root) { r.link(ours().interpreter, "/nowhere") }, `which does not exist: the kernel would report "no such file or directory"`},
		{"a circle of links", ours(), func(r root) { r.link(ours().interpreter, "ld-linux-x86-64.so.2") }, "/lib64/ld-linux-x86-64.so.2: too many levels of symbolic links"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRoot(t)
			r.put("/rollup", elfText(test.program), 0o755)
			test.make(r)
			problems := r.check("/rollup")
			require.Len(t, problems, 1)
			assert.Contains(t, problems[0], test.want)
			assert.True(t, strings.HasPrefix(problems[0], "true: /rollup needs the dynamic loader "), problems[0])
		})
	}
}

// libaUser is the program that needs liba.so.
const libaUser = "/opt/app/bin/rollup"

// libaMissing is the problem of libaUser if liba.so is not found.
var libaMissing = []string{"false: " + libaUser + " needs libraries that are not found: liba.so"}

// needsLiba is a program that needs liba.so, changed.
func needsLiba(change func(p *program)) []byte {
	p := ours()
	p.needed, p.runpath = []string{"liba.so"}, ""
	change(&p)
	return elfText(p)
}

// librarySearch is what is in an image, and the problems of libaUser there.
type librarySearch struct {
	name string
	make func(r root)
	want []string
}

func (s librarySearch) run(t *testing.T) {
	t.Helper()
	t.Run(s.name, func(t *testing.T) {
		r := newRoot(t)
		r.put(ours().interpreter, library(), 0o755)
		s.make(r)
		var got []string
		for _, problem := range r.check(libaUser) {
			text, _, _ := strings.Cut(problem, " → ")
			got = append(got, text)
		}
		assert.Equal(t, s.want, got)
	})
}

func TestLibrariesAreSearchedAsTheLoaderDoes(t *testing.T) {
	plain := needsLiba(func(*program) {})
	for _, search := range []librarySearch{
		{"nowhere", func(r root) { r.put(libaUser, plain, 0o755) }, libaMissing},
		{"beside the program, which is no place", func(r root) { r.put(libaUser, plain, 0o755); r.put("/opt/app/bin/liba.so", library(), 0o644) }, libaMissing},
		{"a default directory", func(r root) { r.put(libaUser, plain, 0o755); r.put("/usr/lib64/liba.so", library(), 0o644) }, nil},
		{"Debian's directory", func(r root) { r.put(libaUser, plain, 0o755); r.put("/lib/x86_64-linux-gnu/liba.so", library(), 0o644) }, nil},
		{"another machine's directory", func(r root) { r.put(libaUser, plain, 0o755); r.put("/lib/aarch64-linux-gnu/liba.so", library(), 0o644) }, libaMissing},
		{"a link to elsewhere in the root", func(r root) {
			r.put(libaUser, plain, 0o755)
			r.put("/store/liba.so.1.2", library(), 0o644)
			r.link("/usr/lib", "../store")
			r.link("/store/liba.so", "../store/liba.so.1.2")
		}, nil},
		{"the loader's configuration", func(r root) {
			r.put(libaUser, plain, 0o755)
			r.put("/etc/ld.so.conf", []byte("# all of them\ninclude ld.so.conf.d/*.conf\ninclude /etc/ld.so.conf\nhwcap 1 no\n"), 0o644)
			r.put("/etc/ld.so.conf.d/rollup.conf", []byte("/opt/one /opt/two # and more\n"), 0o644)
			r.put("/etc/ld.so.conf.d/rollup.bak", []byte("/opt/bak\n"), 0o644)
			r.put("/opt/two/liba.so", library(), 0o644)
		}, nil},
		{"a configuration that does not count", func(r root) {
			r.put(libaUser, plain, 0o755)
			r.put("/etc/ld.so.conf", []byte("include ld.so.conf.d/*.conf\n"), 0o644)
			r.put("/etc/ld.so.conf.d/rollup.bak", []byte("/opt/bak\n"), 0o644)
			r.put("/opt/bak/liba.so", library(), 0o644)
		}, libaMissing},
		{"a library of a library", func(r root) {
			r.put(libaUser, plain, 0o755)
			r.put("/lib/liba.so", library("libb.so", "ld-linux-x86-64.so.2"), 0o644)
		}, []string{"false: " + libaUser + " needs libraries that are not found: libb.so (for liba.so)"}},
		{"libraries in a circle", func(r root) {
			r.put(libaUser, plain, 0o755)
			r.put("/lib/liba.so", library("libb.so"), 0o644)
			r.put("/lib/libb.so", library("liba.so", "libb.so"), 0o644)
		}, nil},
		{"a library for another machine is passed over", func(r root) {
			r.put(libaUser, plain, 0o755)
			r.put("/lib64/liba.so", elfText(program{class: class64, data: littleEndian, machine: 183, kind: typeDyn}), 0o644)
			r.put("/usr/lib/liba.so", library(), 0o644)
		}, nil},
		{"a text in place of a library", func(r root) { r.put(libaUser, plain, 0o755); r.put("/lib/liba.so", []byte("INPUT(liba.a)"), 0o644) }, libaMissing},
		{"many", func(r root) {
			r.put(libaUser, needsLiba(func(p *program) { p.needed = strings.Fields("l1 l2 l3 l4 l5 l6 l7") }), 0o755)
		}, []string{"false: " + libaUser + " needs libraries that are not found: l1, l2, l3, l4, l5, 2 more"}},
	} {
		search.run(t)
	}
}

func TestLibrariesAreSearchedWhereTheProgramSays(t *testing.T) {
	for _, search := range []librarySearch{
		{"a list in the program", func(r root) {
			r.put(libaUser, needsLiba(func(p *program) { p.runpath = "/none::$ORIGIN/../lib" }), 0o755)
			r.put("/opt/app/lib/liba.so", library(), 0o644)
		}, nil},
		{"a runpath is not inherited", func(r root) {
			r.put(libaUser, needsLiba(func(p *program) { p.runpath = "/opt/lib" }), 0o755)
			r.put("/opt/lib/liba.so", library("libb.so"), 0o644)
			r.put("/opt/lib/libb.so", library(), 0o644)
		}, []string{"false: " + libaUser + " needs libraries that are not found: libb.so (for liba.so)"}},
		{"an rpath is inherited", func(r root) {
			r.put(libaUser, needsLiba(func(p *program) { p.rpath = "/opt/lib" }), 0o755)
			r.put("/opt/lib/liba.so", library("libb.so"), 0o644)
			r.put("/opt/lib/libb.so", library(), 0o644)
		}, nil},
		{"an rpath beside a runpath does not count", func(r root) {
			r.put(libaUser, needsLiba(func(p *program) { p.rpath, p.runpath = "/opt/lib", "/opt/none" }), 0o755)
			r.put("/opt/lib/liba.so", library(), 0o644)
		}, libaMissing},
		{"a path that is not there", func(r root) {
			r.put(libaUser, needsLiba(func(p *program) { p.needed = []string{"$ORIGIN/liba.so"} }), 0o755)
			r.put("/lib/liba.so", library(), 0o644)
		}, []string{"true: " + libaUser + " needs libraries that are not found: /opt/app/bin/liba.so"}},
		{"a path", func(r root) {
			r.put(libaUser, needsLiba(func(p *program) { p.needed = []string{"$ORIGIN/liba.so"} }), 0o755)
			r.put("/opt/app/bin/liba.so", library(), 0o644)
		}, nil},
	} {
		search.run(t)
	}
}

func TestLibrariesOfMuslAreSearchedAsMuslDoes(t *testing.T) {
	const loader = "/lib/ld-musl-x86_64.so.1"
	p := ours()
	p.interpreter, p.runpath, p.needed = loader, "", []string{"liba.so", "libc.musl-x86_64.so.1", "libpthread.so.0"}
	r := newRoot(t)
	r.put(loader, library(), 0o755)
	r.put("/rollup", elfText(p), 0o755)
	want := "true: /rollup needs libraries that are not found: liba.so → install the packages that have them, or name their directory in LD_LIBRARY_PATH; looked for in "
	assert.Equal(t, []string{want + "/lib, /usr/local/lib, /usr/lib"}, r.check("/rollup"), "nothing else can name a directory, so it is an error")

	r.put("/usr/local/lib/liba.so", library("libb.so"), 0o644)
	r.put("/opt/lib/libb.so", library(), 0o644)
	require.Len(t, r.check("/rollup"), 1)
	p.runpath = "/opt/lib"
	r.put("/rollup", elfText(p), 0o755)
	assert.Empty(t, r.check("/rollup"), "a runpath is inherited there")

	r.put("/etc/ld-musl-x86_64.path", []byte("/one:/two\n/three\n"), 0o644)
	assert.Equal(t, []string{want + "/one, /two, /three"}, r.check("/rollup"), "the file replaces what is built in")
	r.put("/three/liba.so", library(), 0o644)
	assert.Empty(t, r.check("/rollup"))
}

// A library may name as many others as it likes.
func TestLibrariesOfAHostileFileAreBounded(t *testing.T) {
	r := newRoot(t)
	r.put(ours().interpreter, library(), 0o755)
	for i := range 4 {
		var needed []string
		for n := range neededLimit {
			needed = append(needed, fmt.Sprintf("lib%d-%d", i+1, n))
		}
		r.put(fmt.Sprintf("/lib/lib%d-0", i), library(needed...), 0o644)
	}
	p := ours()
	p.needed, p.runpath = []string{"lib0-0"}, strings.Repeat("/none:", 200)
	r.put("/rollup", elfText(p), 0o755)
	problems := r.check("/rollup")
	require.Len(t, problems, 1)
	assert.Contains(t, problems[0], fmt.Sprintf("%d more", librariesLimit-2-5))
}

func TestScriptNeedsItsInterpreter(t *testing.T) {
	long := "#!/" + strings.Repeat("a/", 150) + "sh"
	for _, test := range []struct{ name, line, want string }{
		{"there", "#!/bin/sh", ""},
		{"with an argument", "#! /bin/sh  -e ", ""},
		{"by env", "#!/usr/bin/env python3", ""},
		{"by env -S", "#!/usr/bin/env -S LANG=C python3 -u", ""},
		{"by env with another option", "#!/usr/bin/env -i python4", ""},
		{"a script", "#!/bin/wrapper", ""},
		{"absent", "#!/bin/bash", "true: the interpreter /bin/bash, named in the #! line of /m, does not exist → install it in the image, or name one that exists"},
		{"not executable", "#!/bin/plain", "true: the interpreter /bin/plain, named in the #! line of /m, is not executable for this user → make it executable: chmod 755 /bin/plain"},
		{"a directory", "#!/bin", "true: the interpreter /bin, named in the #! line of /m, cannot be used: it is a directory, want a regular file → name a program"},
		{"absent by env", "#!/usr/bin/env bash", `true: the interpreter "bash", named in the #! line of /m, is not found in PATH=/usr/bin:/bin → install it in the image, or set PATH`},
		{"env with an argument", "#!/usr/bin/env python3 -u", `true: the interpreter "python3 -u", named in the #! line of /m, is not found in PATH=/usr/bin:/bin → env takes all of it as one name: use #!/usr/bin/env -S python3 -u`},
		{"Windows line ends", "#!/bin/sh\r", `true: the #! line of /m ends in a carriage return, so that /bin/sh is not found → give the file Unix line ends: sed -i 's/\r$//' /m`},
		{"Windows line ends by env", "#!/usr/bin/env python3\r", `true: the #! line of /m ends in a carriage return, so that python3 is not found → give the file Unix line ends: sed -i 's/\r$//' /m`},
		{"none", "#!", "true: the #! line of /m names no interpreter → give it the path of an interpreter: #!/bin/sh"},
		{"too long", long, "true: the #! line of /m is longer than the 256 bytes that the kernel reads → give it the path of an interpreter: #!/bin/sh"},
		{"no #! line", "echo hello", "true: /m is neither an ELF program nor a script with a #! line → name a program; a script's first line names its interpreter: #!/bin/sh"},
		{"itself", "#!/m", "true: /m is a script for a script for a script: the kernel gives up → name a program as its interpreter"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRoot(t)
			for _, name := range []string{"/bin/sh", "/usr/bin/env", "/bin/python3"} {
				r.put(name, static(), 0o755)
			}
			r.put("/bin/plain", static(), 0o644)
			r.script("/bin/wrapper", "#!/bin/sh")
			r.script("/m", test.line)
			var want []string
			if test.want != "" {
				want = []string{test.want}
			}
			assert.Equal(t, want, r.check("/m"))
		})
	}
}

// What we say of a #! line the kernel says too.
func TestKernelAgreesOnScripts(t *testing.T) {
	dir := t.TempDir()
	deep := "/bin/true"
	for i := range scriptDepth + 1 {
		file := filepath.Join(dir, fmt.Sprintf("depth-%d", i+1))
		require.NoError(t, os.WriteFile(file, []byte("#!"+deep+"\n"), 0o755))
		deep = file
	}
	pad := func(n int) string { return "#!" + strings.Repeat("/", n) + "bin/true" }
	lines := []string{
		"#!/bin/true", "#! \t/bin/true  x y ", "#!/bin/true\n", "#!/bin/true\r\n", "#!", "#! ", "#!\n", "#!/bin/none\n", "#!/bin\n", "#!/etc/passwd\n", "echo\n",
		pad(240), pad(244), pad(245) + "\n", pad(245), pad(246), pad(246) + "\n", pad(247) + "\n", pad(300) + "\n", "#!/bin/true " + strings.Repeat("x", 300), "#!" + strings.Repeat(" ", 300) + "/bin/true\n",
		"#!" + filepath.Join(dir, "depth-1") + "\n", "#!" + filepath.Join(dir, fmt.Sprintf("depth-%d", scriptDepth-1)) + "\n", "#!" + filepath.Join(dir, fmt.Sprintf("depth-%d", scriptDepth)) + "\n",
		"#!/usr/bin/env true\n", "#!/usr/bin/env none\n", "#!/usr/bin/env -S true x\n", "#!/usr/bin/env true x\n",
	}
	place := &Place{Path: os.Getenv("PATH")}
	for i, line := range lines {
		file := filepath.Join(dir, fmt.Sprintf("script-%d", i))
		require.NoError(t, os.WriteFile(file, []byte(line), 0o755))
		err := exec.Command(file).Run()
		assert.Equal(t, err == nil, len(place.Check(file)) == 0, "%q: %v, %+v", line, err, place.Check(file))
	}
}

func TestWhatIsNoProgramIsAnError(t *testing.T) {
	object, shared, torn := ours(), ours(), elfText(ours())
	object.kind, shared.interpreter = 1, ""
	for _, test := range []struct {
		name string
		text []byte
		want string
	}{
		{"an object file", elfText(object), "true: /rollup is an object file or a core dump, not a program → name the program itself"},
		{"a library", elfText(shared), "true: /rollup is a shared library, not a program: it names no loader → name the program itself"},
		{"a copy that was cut off", torn[:len(torn)/2], "true: /rollup is broken: it is cut off: it has "},
		{"nothing", nil, "true: /rollup is neither an ELF program nor a script with a #! line"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRoot(t)
			r.put("/rollup", test.text, 0o755)
			problems := r.check("/rollup")
			require.Len(t, problems, 1)
			assert.True(t, strings.HasPrefix(problems[0], test.want), problems[0])
		})
	}
}

func TestPipeIsNotWaitedFor(t *testing.T) {
	r := newRoot(t)
	require.NoError(t, unix.Mkfifo(filepath.Join(r.root, "pipe"), 0o755))
	assert.Equal(t, []string{"true: /pipe cannot be read: open " + r.root + "/pipe: it is a FIFO, want a regular file → make it readable for this user"}, r.check("/pipe"))
}
