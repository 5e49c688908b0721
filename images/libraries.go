package images

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// librariesLimit bounds how many libraries of a program are looked for, directoriesLimit in how many directories each,
	// configsLimit how many files of the loader's configuration are read, and configLimit how many bytes of each.
	librariesLimit   = 512
	directoriesLimit = 256
	configsLimit     = 256
	configLimit      = 64 << 10
)

// object is a program or a library, and what asked for it.
type object struct {
	path string
	program
	parent *object
}

// search finds the libraries of one program, as its loader does (ld.so(8); musl: ldso/dynlink.c).
type search struct {
	*Place
	main   *object
	musl   bool
	system []string
	// known are the names that were looked for, with what was found.
	known map[string]*object
	queue []*object
	// missing are the names that were not found, with what needs them.
	missing []string
	// older are the versions of symbols that the libraries that were found do not have.
	older []string
	// sure: no file that we do not read can name another directory.
	sure bool
	// configs is how many files of the loader's configuration were read.
	configs int
}

// checkLibraries looks for all libraries of the program, and for theirs.
func (p *Place) checkLibraries(file string, prog program) []Problem {
	s := search{Place: p, main: &object{path: file, program: prog}, musl: isMusl(prog.interpreter), known: map[string]*object{}}
	s.system = s.glibcDirs()
	if s.musl {
		s.system = s.muslDirs()
	}
	s.sure = s.musl
	s.queue = []*object{s.main}
	for len(s.queue) > 0 {
		from := s.queue[0]
		s.queue = s.queue[1:]
		for _, name := range from.needed {
			s.need(from, name)
			s.compare(from, name)
		}
	}
	var problems []Problem
	if len(s.missing) > 0 {
		problems = append(problems, Problem{
			Sure: s.sure, What: file + " needs libraries that are not found: " + some(s.missing),
			Next: "install the packages that have them, or name their directory in LD_LIBRARY_PATH; looked for in " + strings.Join(s.system, ", "),
		})
	}
	if len(s.older) > 0 {
		problems = append(problems, Problem{
			What: file + " was built for newer libraries: it needs " + some(s.older),
			Next: "use an image of the system that it was built on, or of a newer one, or build it on the system of the image",
		})
	}
	return problems
}

func some(list []string) string {
	const shown = 5
	if more := len(list) - shown; more > 0 {
		list = append(slices.Clone(list[:shown]), fmt.Sprintf("%d more", more))
	}
	return strings.Join(list, ", ")
}

// need looks for a library that an object needs. A library is loaded once for all objects that need it by the same name.
func (s *search) need(from *object, name string) {
	if _, done := s.known[name]; done || s.isLoader(name) || len(s.known) == librariesLimit {
		return
	}
	found := s.find(from, name)
	s.known[name] = found
	switch {
	case found != nil:
		s.queue = append(s.queue, found)
	case strings.Contains(name, "/"):
		s.sure = true
		s.miss(from, s.expand(from, name))
	default:
		s.miss(from, name)
	}
}

// find gives nil if there is no such library.
func (s *search) find(from *object, name string) *object {
	if strings.Contains(name, "/") {
		return s.library(from, s.expand(from, name))
	}
	dirs := s.dirs(from)
	for _, dir := range dirs[:min(len(dirs), directoriesLimit)] {
		if found := s.library(from, filepath.Join(dir, name)); found != nil {
			return found
		}
	}
	return nil
}

func (s *search) miss(from *object, name string) {
	if from != s.main {
		name += " (for " + filepath.Base(from.path) + ")"
	}
	s.missing = append(s.missing, name)
}

// isLoader reports whether the name is that of the loader itself. The loader of musl is also the C library, by any of its
// names.
func (s *search) isLoader(name string) bool {
	if name == filepath.Base(s.main.interpreter) {
		return true
	}
	rest, isLib := strings.CutPrefix(name, "lib")
	word, _, dot := strings.Cut(rest, ".")
	return s.musl && isLib && dot && slices.Contains([]string{"c", "pthread", "rt", "m", "dl", "util", "xnet"}, word)
}

// library opens a file that may be the library, and gives nil if it is not. One for another machine is passed over, as the
// loader does.
func (s *search) library(from *object, file string) *object {
	f, size, err := s.open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	prog, err := readELF(f, size)
	if err != nil || prog.kind != typeDyn || prog.machine != s.main.machine || prog.class != s.main.class {
		return nil
	}
	return &object{path: file, program: prog, parent: from}
}

// dirs are the directories in which the loader looks for what an object needs, in its order. DT_RPATH also applies to what
// the libraries need, DT_RUNPATH only to the object itself; to musl both are the same.
func (s *search) dirs(from *object) []string {
	variable := strings.FieldsFunc(s.LibraryPath, func(r rune) bool { return r == ':' || r == ';' })
	if s.musl {
		dirs := variable
		for o := from; o != nil; o = o.parent {
			dirs = append(dirs, s.expandAll(o, o.runpath+":"+o.rpath)...)
		}
		return append(dirs, s.system...)
	}
	var dirs []string
	for o := from; o != nil && from.runpath == ""; o = o.parent {
		if o.runpath == "" {
			dirs = append(dirs, s.expandAll(o, o.rpath)...)
		}
	}
	dirs = append(dirs, variable...)
	dirs = append(dirs, s.expandAll(from, from.runpath)...)
	return append(dirs, s.system...)
}

func (s *search) expandAll(o *object, list string) []string {
	var dirs []string
	for _, dir := range strings.Split(list, ":") {
		if dir != "" {
			dirs = append(dirs, s.expand(o, dir))
		}
	}
	return dirs
}

// expand replaces the variables for the directory of the object and for that of the machine's libraries.
func (s *search) expand(o *object, text string) string {
	origin := filepath.Dir(o.path)
	if o == s.main {
		// That of the program is the real one, behind all links.
		if real, err := filepath.EvalSymlinks(o.path); err == nil {
			origin = filepath.Dir(real)
		}
	}
	if absolute, err := filepath.Abs(origin); err == nil {
		origin = absolute
	}
	lib := "lib/" + s.machine().triple
	return strings.NewReplacer("${ORIGIN}", origin, "$ORIGIN", origin, "${LIB}", lib, "$LIB", lib).Replace(text)
}

// muslDirs are those of musl's configuration, otherwise its own.
func (s *search) muslDirs() []string {
	name := strings.TrimSuffix(filepath.Base(s.main.interpreter), ".so.1")
	text := s.head("/etc/"+name+".path", configLimit)
	if dirs := strings.FieldsFunc(text, func(r rune) bool { return r == ':' || r == '\n' }); len(dirs) > 0 {
		return dirs
	}
	return []string{"/lib", "/usr/local/lib", "/usr/lib"}
}

// glibcDirs are those of /etc/ld.so.conf, from which ldconfig makes the cache that the loader reads, and then the loader's
// own. These differ between distributions, so all are listed.
func (s *search) glibcDirs() []string {
	dirs := s.configDirs("/etc/ld.so.conf")
	if triple := s.machine().triple; triple != "" {
		dirs = append(dirs, "/lib/"+triple, "/usr/lib/"+triple)
	}
	own := []string{"/lib64", "/usr/lib64", "/lib", "/usr/lib"}
	var all []string
	for _, dir := range append(dirs, own...) {
		if !slices.Contains(all, dir) {
			all = append(all, dir)
		}
	}
	return all
}

// configDirs reads a file of ldconfig(8).
func (s *search) configDirs(file string) []string {
	if s.configs++; s.configs > configsLimit { // they may include each other
		return nil
	}
	var dirs []string
	for line := range strings.Lines(s.head(file, configLimit)) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\n\r,:", r) })
		switch {
		case len(words) == 0 || words[0] == "hwcap":
		case words[0] == "include":
			for _, pattern := range words[1:] {
				dirs = append(dirs, s.included(filepath.Dir(file), pattern)...)
			}
		default:
			dirs = append(dirs, words...)
		}
	}
	return dirs
}

// included reads the files of a pattern. Only its last element may have wildcards.
func (s *search) included(dir, pattern string) []string {
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(dir, pattern)
	}
	entries, _ := os.ReadDir(s.root + filepath.Dir(pattern)) // sorted, as ldconfig reads them
	var dirs []string
	for _, entry := range entries {
		if match, _ := filepath.Match(filepath.Base(pattern), entry.Name()); match {
			dirs = append(dirs, s.configDirs(filepath.Join(filepath.Dir(pattern), entry.Name()))...)
		}
	}
	return dirs
}
