package images

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// elfWriter writes numbers as an ELF file has them.
type elfWriter struct {
	binary.AppendByteOrder
	wide bool // of 64 bits
}

func newELFWriter(p program) elfWriter {
	if p.data == bigEndian {
		return elfWriter{binary.BigEndian, p.class == class64}
	}
	return elfWriter{binary.LittleEndian, p.class == class64}
}

// word appends values that are as wide as an address.
func (w elfWriter) word(b []byte, values ...uint64) []byte {
	for _, v := range values {
		if w.wide {
			b = w.AppendUint64(b, v)
		} else {
			b = w.AppendUint32(b, uint32(v))
		}
	}
	return b
}

// sizes are those of the file's header and of a program header.
func (w elfWriter) sizes() (header, entry int) {
	if w.wide {
		return 64, 56
	}
	return 52, 32
}

// elfAddress is where the file is in memory.
const elfAddress = 0x10000

// segment appends a program header.
func (w elfWriter) segment(b []byte, kind uint32, from, size int) []byte {
	offset := uint64(from)
	b = w.AppendUint32(b, kind)
	if w.wide {
		b = w.AppendUint32(b, 4)
	}
	b = w.word(b, offset, elfAddress+offset, elfAddress+offset, uint64(size), uint64(size))
	if !w.wide {
		b = w.AppendUint32(b, 4)
	}
	return w.word(b, 1)
}

// header is the header of a file with so many program headers.
func (w elfWriter) header(p program, headers int) []byte {
	headerSize, entrySize := w.sizes()
	b := append([]byte(magic), p.class, p.data, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = w.AppendUint16(b, p.kind)
	b = w.AppendUint16(b, p.machine)
	b = w.AppendUint32(b, 1)
	b = w.word(b, elfAddress, uint64(headerSize), 0)
	b = w.AppendUint32(b, 0)
	for _, v := range []uint16{uint16(headerSize), uint16(entrySize), uint16(headers), 0, 0, 0} {
		b = w.AppendUint16(b, v)
	}
	return b
}

// content is what the segments of p hold if it begins at the byte at: the names, the loader at loaderAt, and from
// entriesAt what the loader reads. Both are relative to at.
func (w elfWriter) content(p program, at int) (content []byte, loaderAt, entriesAt int) {
	table := []byte{0}
	name := func(text string) uint64 {
		table = append(table, text+"\x00"...)
		return uint64(len(table) - len(text) - 1)
	}
	var entries []byte
	for _, n := range p.needed {
		entries = w.word(entries, dtNeeded, name(n))
	}
	if p.rpath != "" {
		entries = w.word(entries, dtRpath, name(p.rpath))
	}
	if p.runpath != "" {
		entries = w.word(entries, dtRunpath, name(p.runpath))
	}
	wants, gives := wantsTable(w, p.wants, name), givesTable(w, p.gives, name)
	content = slices.Concat(table, []byte(p.interpreter+"\x00"), wants, gives)
	start, behind := elfAddress+uint64(at), elfAddress+uint64(at+len(table)+len(p.interpreter)+1)
	entries = w.word(entries, dtStrtab, start, dtStrsz, uint64(len(table)), dtVerneed, behind, dtVerneednum, uint64(len(p.wants)),
		dtVerdef, behind+uint64(len(wants)), dtVerdefnum, uint64(len(p.gives)), dtNull, 0)
	return append(content, entries...), len(table), len(content)
}

// elfText writes the smallest ELF file that says all of p: a header, program headers, and one segment with what they
// point at.
func elfText(p program) []byte {
	const headers = 3
	w := newELFWriter(p)
	headerSize, entrySize := w.sizes()
	at := headerSize + headers*entrySize
	content, loaderAt, entriesAt := w.content(p, at)
	b := w.segment(w.header(p, headers), ptLoad, 0, at+len(content))
	if p.interpreter != "" {
		b = w.segment(b, ptInterp, at+loaderAt, len(p.interpreter)+1)
	} else {
		b = w.segment(b, 0, 0, 0)
	}
	b = w.segment(b, ptDynamic, at+entriesAt, len(content)-entriesAt)
	return append(b, content...)
}

// wantsTable writes the versions needed: a library, then its versions, one behind the other.
func wantsTable(order binary.AppendByteOrder, wants map[string][]string, name func(string) uint64) []byte {
	var b []byte
	libraries := slices.Sorted(maps.Keys(wants))
	for i, library := range libraries {
		next := uint32(0)
		if i < len(libraries)-1 {
			next = uint32(16 * (1 + len(wants[library])))
		}
		b = order.AppendUint16(b, 1)
		b = order.AppendUint16(b, uint16(len(wants[library])))
		b = append32(order, b, uint32(name(library)), 16, next)
		for n, version := range wants[library] {
			next := uint32(0)
			if n < len(wants[library])-1 {
				next = 16
			}
			b = append32(order, b, 0, 0, uint32(name(version)), next)
		}
	}
	return b
}

// givesTable writes the versions that a library has.
func givesTable(order binary.AppendByteOrder, gives []string, name func(string) uint64) []byte {
	var b []byte
	for i, version := range gives {
		next := uint32(0)
		if i < len(gives)-1 {
			next = 28
		}
		b = append32(order, b, 0, 0, 0, 20, next, uint32(name(version)), 0)
	}
	return b
}

func append32(order binary.AppendByteOrder, b []byte, values ...uint32) []byte {
	for _, v := range values {
		b = order.AppendUint32(b, v)
	}
	return b
}

func read(text []byte) (program, error) { return readELF(bytes.NewReader(text), int64(len(text))) }

// ours is a program for amd64 that needs a loader and libraries.
func ours() program {
	return program{
		class: class64, data: littleEndian, machine: 62, kind: typeDyn, interpreter: "/lib64/ld-linux-x86-64.so.2",
		needed: []string{"libz.so.1", "libc.so.6"}, runpath: "$ORIGIN/../lib",
		wants: map[string][]string{"libc.so.6": {"GLIBC_2.2.5", "GLIBC_2.38"}, "libz.so.1": {"ZLIB_1.2"}}, gives: []string{"rollup", "ROLLUP_1"},
	}
}

func TestWhatTheLoaderNeedsIsRead(t *testing.T) {
	for name, p := range map[string]program{
		"64 bits": ours(),
		"32 bits": {class: class32, data: littleEndian, machine: 3, kind: typeExec, interpreter: "/lib/ld-linux.so.2", needed: []string{"libc.so.6"}, rpath: "/opt/lib"},
		"big":     {class: class64, data: bigEndian, machine: 22, kind: typeDyn, interpreter: "/lib/ld64.so.1", needed: []string{"libc.so.6"}},
		"static":  {class: class64, data: littleEndian, machine: 183, kind: typeExec},
		"library": {class: class64, data: littleEndian, machine: 62, kind: typeDyn, needed: []string{"libc.so.6"}, rpath: "/a", runpath: "/b:/c"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := read(elfText(p))
			require.NoError(t, err)
			assert.Equal(t, p, got)
		})
	}
}

// Wherever a copy ended, it is seen that it did.
func TestCutOffFileIsBrokenAtEveryByte(t *testing.T) {
	for _, class := range []byte{class32, class64} {
		p := ours()
		p.class = class
		text := elfText(p)
		for n := range text {
			_, err := read(text[:n])
			require.Error(t, err, n)
			if n >= identSize {
				require.ErrorContains(t, err, "cut off", n)
			}
		}
	}
}

// Version tables are read as far as they can be: a program need not have any.
func TestVersionsOfSymbolsThatCannotBeReadAreNone(t *testing.T) {
	put := func(b []byte, tag uint32, value uint64) {
		at := bytes.LastIndex(b, binary.LittleEndian.AppendUint64(nil, uint64(tag)))
		binary.LittleEndian.PutUint64(b[at+8:], value)
	}
	for name, lie := range map[string]func(b []byte){
		"outside": func(b []byte) { put(b, dtVerneed, 1<<40); put(b, dtVerdef, 1<<40) },
		"cut off": func(b []byte) {
			put(b, dtVerneed, 0x10000+uint64(len(b))-4)
			put(b, dtVerdef, 0x10000+uint64(len(b))-4)
		},
		"none": func(b []byte) { put(b, dtVerneednum, 0); put(b, dtVerdefnum, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			text := elfText(ours())
			lie(text)
			got, err := read(text)
			require.NoError(t, err)
			assert.Empty(t, got.wants)
			assert.Empty(t, got.gives)
		})
	}
	endless := ours()
	endless.gives = strings.Fields(strings.Repeat("V ", symbolsLimit))
	got, err := read(elfText(endless))
	require.NoError(t, err)
	assert.Less(t, len(got.gives), symbolsLimit)
}

func TestMaliciousFileIsToldWithoutReadingWhatItClaims(t *testing.T) {
	const segmentsAt, entry = 64, 56
	put16 := binary.LittleEndian.PutUint16
	put64 := binary.LittleEndian.PutUint64
	for _, test := range []struct {
		name string
		lie  func(b []byte)
		want string
	}{
		{"class", func(b []byte) { b[identClass] = 7 }, "its class is 7, which does not exist"},
		{"byte order", func(b []byte) { b[identData] = 0 }, "its byte order is 0, which does not exist"},
		{"no program headers", func(b []byte) { put16(b[56:], 0) }, "it has 0 program headers of 56 bytes, which the kernel refuses"},
		{"too many program headers", func(b []byte) { put16(b[56:], 0xffff) }, "it has 65535 program headers of 56 bytes, which the kernel refuses"},
		{"large program headers", func(b []byte) { put16(b[54:], 0xffff) }, "it has 3 program headers of 65535 bytes, which the kernel refuses"},
		{"program headers at the end of the world", func(b []byte) { put64(b[32:], ^uint64(0)) }, "its program headers cannot be read: it is cut off"},
		{"a segment beyond the end of the world", func(b []byte) { put64(b[segmentsAt+32:], ^uint64(0)) }, "refers to bytes up to 18446744073709551615"},
		{"a loader of a gigabyte", func(b []byte) { put64(b[segmentsAt+entry+32:], 1<<30) }, "the name of its loader has 1073741824 bytes, which the kernel refuses"},
		{"a loader without a name", func(b []byte) { put64(b[segmentsAt+entry+32:], 1) }, "the name of its loader has 1 bytes"},
		{"a loader without an end", func(b []byte) { put64(b[segmentsAt+entry+32:], 5) }, "the name of its loader is not terminated"},
		{"a dynamic segment outside", func(b []byte) { put64(b[segmentsAt+2*entry+8:], 1<<62) }, "it is cut off"},
		{"names outside of the file", func(b []byte) { put64(b[bytes.LastIndexByte(b, dtStrtab)+8:], 1<<40) }, "what its loader needs is not in the file"},
		{"names outside of their table", func(b []byte) { put64(b[bytes.LastIndexByte(b, dtStrsz)+8:], 1) }, "is outside the table of names"},
		{"a name without an end", func(b []byte) { put64(b[bytes.LastIndexByte(b, dtStrsz)+8:], 3) }, "a name that its loader needs is not terminated"},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := elfText(ours())
			test.lie(text)
			_, err := read(text)
			require.ErrorContains(t, err, test.want)
		})
	}
	p := ours()
	p.needed = strings.Fields(strings.Repeat("lib ", neededLimit+1))
	_, err := read(elfText(p))
	require.ErrorContains(t, err, "it names 513 libraries, which no program does")
}
