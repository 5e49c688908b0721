package sequencer

import "context"

// Inspection looks at the files of the plan, and at the machine and the volume. Package internal/preflight is the real one;
// 'entrypoint check' uses it, too. It changes nothing, and may be used by several goroutines.
type Inspection interface {
	// Version finds what is wrong with version i.
	Version(ctx context.Context, i int, depth Depth) []Finding
	// Shared finds what is wrong with what all versions share: by Programs the state's directory, the volume and the machine,
	// by Manifest the config that lists the versions.
	Shared(ctx context.Context, depth Depth) []Finding
	// Digest gives the SHA-256, in hex, of a version's binary. It is quick as long as the file is the same.
	Digest(i int) (string, error)
	// Storage gives the directory in which a program that is started now with the config of version i finds the state,
	// absolute and without symbolic links; empty if the config does not name it. same reports whether that is dir.
	Storage(i int, dir string) (now string, same bool, err error)
}

// Depth is how closely an Inspection looks. It always sees whether the files are there and can be executed or read.
type Depth int

// FilesOnly is the quickest look.
const FilesOnly Depth = 0

// What a closer look adds.
const (
	// Programs also looks for the loaders, interpreters and libraries that the programs need.
	Programs Depth = 1 << iota
	// Manifest also compares all files with the manifest of the image, if there is one. When ctx ends, it returns soon, and
	// what it returns then does not count.
	Manifest
	// Idly: nobody waits. Files are compared only while nothing else wants the disk, and each is read even if its digest is
	// known.
	Idly
)
