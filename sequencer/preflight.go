package sequencer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/lookpath"
	"rollup-entrypoint/sequencer/sovereign"
)

// Disk is the Files of a real machine. The zero value is ready.
type Disk struct {
	// Checkpoint is the checkpoint file, empty for none. It may lie in the state directory, and is no state.
	Checkpoint string

	digests digests
}

// Check finds all that is wrong with the files of version i: nothing is said of those that it does not have.
func (d *Disk) Check(plan *Plan, i int) Problems { return checkVersion(plan, i) }

// Digest gives the SHA-256, in hex, of the program that name stands for.
func (d *Disk) Digest(name string) (string, error) {
	path, err := lookpath.Find(name, os.Getenv("PATH"))
	if err != nil {
		return "", fmt.Errorf("cannot find the binary: %w", err)
	}
	return d.digests.of(path)
}

// EmptyState gives the state directory of the node config at path, if it is known to be empty or absent.
func (d *Disk) EmptyState(config string) (dir string, empty bool) {
	cfg, err := sovereign.ReadConfig(config)
	if err != nil {
		return "", false
	}
	empty, known := cfg.StorageEmpty(d.ofCheckpoint(cfg.StorageDir()))
	return cfg.StorageDir(), known && empty
}

// ofCheckpoint gives a function that tells the names in dir which belong to the checkpoint.
func (d *Disk) ofCheckpoint(dir string) func(name string) bool {
	path, err := filepath.Abs(d.Checkpoint)
	if d.Checkpoint == "" || err != nil || filepath.Dir(path) != dir {
		return func(string) bool { return false }
	}
	base := filepath.Base(path)
	return func(name string) bool {
		return name == base || name == base+lockSuffix || isTemporary(base, name)
	}
}

// checkVersion finds what is wrong with the files of version i.
func checkVersion(plan *Plan, i int) Problems {
	var found Problems
	for _, p := range fileProblems(plan.Versions[i]) {
		found = append(found, fmt.Sprintf("%s: %s: %s", plan.label(i), p.key, p.err))
	}
	return found
}

// fileProblem is what is wrong with the file that a key of the plan names.
type fileProblem struct {
	key string
	err error
}

func fileProblems(v Version) []fileProblem {
	var found []fileProblem
	add := func(key string, err error) {
		if err != nil {
			found = append(found, fileProblem{key, err})
		}
	}
	add(keyBinary, checkExecutable(v.Binary))
	if v.Migration != "" {
		add(keyMigration, checkExecutable(v.Migration))
	}
	_, err := sovereign.ReadConfig(v.Config)
	add(keyConfig, err)
	return found
}

// checkExecutable asks the kernel whether this process may execute the file.
func checkExecutable(name string) error {
	path, err := lookpath.Find(name, os.Getenv("PATH"))
	if err != nil {
		return err //nolint:wrapcheck // it names the file and PATH
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err //nolint:wrapcheck // it names the operation and the file
	case info.IsDir():
		return fmt.Errorf("%s is a directory, want a program", path)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file, want a program", path)
	case info.Size() == 0:
		return fmt.Errorf("%s is empty, want a program", path)
	// Root passes access(2) for X_OK only where some execute bit is set; others by owner, group and mount options.
	case errors.Is(unix.Access(path, unix.X_OK), unix.EACCES):
		return fmt.Errorf("%s is not executable for user %d (mode %s)", path, os.Getuid(), info.Mode().Perm())
	}
	return nil
}
