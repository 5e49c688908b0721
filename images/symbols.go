package images

import (
	"path/filepath"
	"slices"
)

// A library says which versions of its symbols it has, and a program which versions it needs of which library. So a program
// that was built on a newer system than that of its image is found by "GLIBC_2.38", which is missing there.

const (
	dtVerneed, dtVerneednum = 0x6ffffffe, 0x6fffffff
	dtVerdef, dtVerdefnum   = 0x6ffffffc, 0x6ffffffd
	// weak: the loader can do without this version.
	weak = 2
	// symbolsLimit is how many entries of a file's tables are read at most.
	symbolsLimit = 2048
)

// wants reads the table of the versions that are needed (Verneed and Vernaux of elf(5)), as far as it is readable.
func (l loaded) wants() map[string][]string {
	var wanted map[string][]string
	left := symbolsLimit
	l.chain(l.tags[dtVerneed], l.tags[dtVerneednum], 16, 12, &left, func(at uint64, need []byte) {
		library, err := l.name(uint64(l.order.Uint32(need[4:])))
		if err != nil {
			return
		}
		l.chain(end(at, uint64(l.order.Uint32(need[8:]))), uint64(l.order.Uint16(need[2:])), 16, 12, &left, func(_ uint64, version []byte) {
			name, err := l.name(uint64(l.order.Uint32(version[8:])))
			if err != nil || l.order.Uint16(version[4:])&weak != 0 {
				return
			}
			if wanted == nil {
				wanted = map[string][]string{}
			}
			wanted[library] = append(wanted[library], name)
		})
	})
	return wanted
}

// gives reads the table of the versions that a library has (Verdef and its first Verdaux).
func (l loaded) gives() []string {
	var given []string
	left := symbolsLimit
	l.chain(l.tags[dtVerdef], l.tags[dtVerdefnum], 20, 16, &left, func(at uint64, version []byte) {
		l.chain(end(at, uint64(l.order.Uint32(version[12:]))), 1, 8, 4, &left, func(_ uint64, first []byte) {
			if name, err := l.name(uint64(l.order.Uint32(first))); err == nil {
				given = append(given, name)
			}
		})
	})
	return given
}

// chain visits count entries of size bytes. Each has the distance to the following one at byte next.
func (l loaded) chain(at, count, size, next uint64, left *int, visit func(at uint64, entry []byte)) {
	for ; count > 0 && *left > 0; count-- {
		*left--
		entry, err := l.at(at, size)
		if err != nil || uint64(len(entry)) < size {
			return
		}
		visit(at, entry)
		step := uint64(l.order.Uint32(entry[next:]))
		if step == 0 {
			return
		}
		at = end(at, step)
	}
}

// compare finds the versions that an object wants of a library and that the one found does not have. The loader of musl
// does not look at versions; that of glibc also takes a library that has none.
func (s *search) compare(from *object, name string) {
	found := s.known[name]
	if s.musl || found == nil || len(found.gives) == 0 {
		return
	}
	for _, version := range from.wants[name] {
		if slices.Contains(found.gives, version) {
			continue
		}
		text := version + " of " + found.path
		if from != s.main {
			text += " (for " + filepath.Base(from.path) + ")"
		}
		if !slices.Contains(s.older, text) {
			s.older = append(s.older, text)
		}
	}
}
