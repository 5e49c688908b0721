package images

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// How much is read of a file. The first two are the kernel's own limits (load_elf_phdrs and load_elf_binary in
// fs/binfmt_elf.c); no real program exceeds one of the others.
const (
	headersLimit = 64 << 10
	pathLimit    = 4096
	dynamicLimit = 64 << 10
	neededLimit  = 512
)

// The numbers of elf(5) that matter here. Package debug/elf has them too, but it links the reader of debugging information.
const (
	magic      = "\x7fELF"
	identClass = 4
	identData  = 5
	identSize  = 16

	class32, class64        = 1, 2
	littleEndian, bigEndian = 1, 2
	typeExec, typeDyn       = 2, 3

	ptLoad, ptDynamic, ptInterp = 1, 2, 3

	dtNull, dtNeeded, dtStrtab, dtStrsz, dtRpath, dtRunpath = 0, 1, 5, 10, 15, 29
)

// program is what the kernel and the loader read of an ELF file. They use its program headers; section headers, which
// debug/elf uses, may be stripped or wrong.
type program struct {
	class, data   byte
	machine, kind uint16
	// interpreter is PT_INTERP, the dynamic loader; empty for a program that needs none.
	interpreter string
	// needed are the libraries (DT_NEEDED), in the order of the file.
	needed []string
	// rpath and runpath are the lists of directories, as in the file.
	rpath, runpath string
	// wants are the versions of symbols that it needs, by library, and gives are those that it has for others.
	wants map[string][]string
	gives []string
}

// errNotELF: the file does not begin like an ELF file.
var errNotELF = errors.New("it is not an ELF file")

// elfFile reads numbers of one file in its class and byte order.
type elfFile struct {
	io.ReaderAt
	size  int64
	order binary.ByteOrder
	wide  bool
}

// segment is a program header.
type segment struct {
	kind                    uint32
	offset, address, inFile uint64
}

// readELF reads a file of size bytes. The error is errNotELF, or says what is broken.
func readELF(r io.ReaderAt, size int64) (program, error) {
	var p program
	head := make([]byte, 64)
	n, _ := r.ReadAt(head, 0)
	if n < identSize || !bytes.HasPrefix(head[:n], []byte(magic)) {
		return p, errNotELF
	}
	f := elfFile{ReaderAt: r, size: size}
	p.class, p.data = head[identClass], head[identData]
	switch p.data {
	case littleEndian:
		f.order = binary.LittleEndian
	case bigEndian:
		f.order = binary.BigEndian
	default:
		return p, fmt.Errorf("its byte order is %d, which does not exist", head[identData])
	}
	want := 64
	switch f.wide = p.class == class64; p.class {
	case class64:
	case class32:
		want = 52
	default:
		return p, fmt.Errorf("its class is %d, which does not exist", head[identClass])
	}
	if n < want {
		return p, fmt.Errorf("it is cut off inside its header, at byte %d", n)
	}
	p.kind, p.machine = f.order.Uint16(head[16:]), f.order.Uint16(head[18:])
	segments, err := f.segments(head)
	if err != nil {
		return p, err
	}
	return p, f.describe(&p, segments)
}

// word is an address or an offset: 8 bytes in a file of class 64, 4 in one of class 32.
func (f *elfFile) word(b []byte) uint64 {
	if f.wide {
		return f.order.Uint64(b)
	}
	return uint64(f.order.Uint32(b))
}

func (f *elfFile) segments(head []byte) ([]segment, error) {
	at, entry, count, size := f.word(head[28:]), f.order.Uint16(head[42:]), f.order.Uint16(head[44:]), 32
	if f.wide {
		at, entry, count, size = f.word(head[32:]), f.order.Uint16(head[54:]), f.order.Uint16(head[56:]), 56
	}
	if int(entry) != size || count == 0 || int(count)*size > headersLimit {
		return nil, fmt.Errorf("it has %d program headers of %d bytes, which the kernel refuses", count, entry)
	}
	table, err := f.bytes(at, uint64(count)*uint64(size))
	if err != nil {
		return nil, fmt.Errorf("its program headers cannot be read: %w", err)
	}
	var segments []segment
	for ; len(table) > 0; table = table[size:] {
		s := segment{kind: f.order.Uint32(table)}
		if f.wide {
			s.offset, s.address, s.inFile = f.word(table[8:]), f.word(table[16:]), f.word(table[32:])
		} else {
			s.offset, s.address, s.inFile = f.word(table[4:]), f.word(table[8:]), f.word(table[16:])
		}
		segments = append(segments, s)
	}
	return segments, nil
}

// bytes reads n bytes at an offset. The caller has bounded n.
func (f *elfFile) bytes(at, n uint64) ([]byte, error) {
	if at > uint64(f.size) || n > uint64(f.size)-at {
		return nil, fmt.Errorf("it is cut off: it has %d bytes, and refers to bytes up to %d", f.size, end(at, n))
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, int64(at)); err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	return b, nil
}

// end is at+n, or the largest number.
func end(at, n uint64) uint64 {
	if n > math.MaxUint64-at {
		return math.MaxUint64
	}
	return at + n
}

func (f *elfFile) describe(p *program, segments []segment) error {
	for _, s := range segments {
		switch s.kind {
		case ptLoad:
			// The kernel maps what is missing too, and the program dies of SIGBUS when it touches that.
			if end(s.offset, s.inFile) > uint64(f.size) {
				return fmt.Errorf("it is cut off: it has %d bytes, and refers to bytes up to %d", f.size, end(s.offset, s.inFile))
			}
		case ptInterp:
			if p.interpreter != "" {
				continue // the kernel takes the first
			}
			if s.inFile < 2 || s.inFile > pathLimit {
				return fmt.Errorf("the name of its loader has %d bytes, which the kernel refuses", s.inFile)
			}
			name, err := f.bytes(s.offset, s.inFile)
			if err != nil {
				return err
			}
			if name[len(name)-1] != 0 {
				return errors.New("the name of its loader is not terminated, which the kernel refuses")
			}
			p.interpreter = cString(name)
		}
	}
	for _, s := range segments {
		if s.kind == ptDynamic {
			return f.dynamic(p, segments, s)
		}
	}
	return nil
}

// dynamic reads the program's instructions to the loader.
func (f *elfFile) dynamic(p *program, segments []segment, s segment) error {
	table, err := f.bytes(s.offset, min(s.inFile, dynamicLimit))
	if err != nil {
		return err
	}
	needed, single := f.entries(table)
	if len(needed) > neededLimit {
		return fmt.Errorf("it names %d libraries, which no program does", len(needed))
	}
	l := loaded{f, segments, single}
	name := func(at uint64) string {
		text, nameErr := l.name(at)
		err = errors.Join(err, nameErr)
		return text
	}
	for _, at := range needed {
		if p.needed = append(p.needed, name(at)); err != nil {
			return err
		}
	}
	if at, there := single[dtRpath]; there {
		p.rpath = name(at)
	}
	if at, there := single[dtRunpath]; there {
		p.runpath = name(at)
	}
	p.wants, p.gives = l.wants(), l.gives()
	return err
}

// entries gives the values of DT_NEEDED, and the last one of every other tag.
func (f *elfFile) entries(table []byte) (needed []uint64, single map[uint64]uint64) {
	half := 4
	if f.wide {
		half = 8
	}
	single = map[uint64]uint64{}
	for ; len(table) >= 2*half; table = table[2*half:] {
		tag, value := f.word(table), f.word(table[half:])
		switch tag {
		case dtNull:
			return needed, single
		case dtNeeded:
			needed = append(needed, value)
		default:
			single[tag] = value
		}
	}
	return needed, single
}

// loaded is a file as it will be in memory, where the loader reads it.
type loaded struct {
	*elfFile
	segments []segment
	// tags are the entries of the dynamic segment, but for DT_NEEDED.
	tags map[uint64]uint64
}

// at reads up to n bytes at an address.
func (l loaded) at(address, n uint64) ([]byte, error) {
	for _, s := range l.segments {
		if s.kind != ptLoad || address < s.address || address-s.address >= s.inFile {
			continue
		}
		inside := address - s.address
		return l.bytes(end(s.offset, inside), min(n, s.inFile-inside))
	}
	return nil, errors.New("what its loader needs is not in the file")
}

func (l loaded) name(at uint64) (string, error) {
	size := l.tags[dtStrsz]
	if at >= size {
		return "", errors.New("a name that its loader needs is outside the table of names")
	}
	b, err := l.at(end(l.tags[dtStrtab], at), min(size-at, pathLimit))
	if err != nil {
		return "", err
	}
	if bytes.IndexByte(b, 0) < 0 {
		return "", errors.New("a name that its loader needs is not terminated")
	}
	return cString(b), nil
}

// cString is b up to the first NUL byte.
func cString(b []byte) string {
	text, _, _ := strings.Cut(string(b), "\x00")
	return text
}
