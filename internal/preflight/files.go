// Package preflight looks at what a run needs of the file system before anything is started: the files of the versions,
// their digests, and the volume of the state and the checkpoint. It changes nothing.
package preflight

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/lookpath"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/plan"
	"rollup-entrypoint/sequencer/sovereign"
)

// Disk is the Files of a real machine. The zero value is ready.
type Disk struct{ digests digests }

// Check finds all that is wrong with the files of version i: nothing is said of those that it does not have.
func (d *Disk) Check(p *sequencer.Plan, i int) sequencer.Problems { return checkVersion(p, i) }

// Digest gives the SHA-256, in hex, of the program that name stands for.
func (d *Disk) Digest(name string) (string, error) {
	path, err := lookpath.Find(name, os.Getenv("PATH"))
	if err != nil {
		return "", fmt.Errorf("cannot find the binary: %w", err)
	}
	return d.digests.of(path)
}

// Storage gives the directory, absolute and without symbolic links, that the node config names; empty where it names none.
func (d *Disk) Storage(config string) (string, error) {
	cfg, err := sovereign.ReadConfig(config)
	if err != nil || cfg.Storage == "" {
		return "", err
	}
	dir, err := filepath.Abs(checkpoint.ResolveLinks(cfg.StorageDir()))
	if err != nil {
		return "", fmt.Errorf("cannot find the storage directory of %s: %w", config, err)
	}
	return dir, nil
}

// checkVersion finds what is wrong with the files of version i.
func checkVersion(p *sequencer.Plan, i int) sequencer.Problems {
	var found sequencer.Problems
	for _, problem := range fileProblems(p.Versions[i]) {
		found = append(found, fmt.Sprintf("%s: %s: %s", p.Label(i), problem.key, problem.err))
	}
	return found
}

// fileProblem is what is wrong with the file that a key of the plan names.
type fileProblem struct {
	key string
	err error
}

func fileProblems(v sequencer.Version) []fileProblem {
	var found []fileProblem
	add := func(key string, err error) {
		if err != nil {
			found = append(found, fileProblem{key, err})
		}
	}
	add(plan.KeyBinary, checkExecutable(v.Binary))
	if v.Migration != "" {
		add(plan.KeyMigration, checkExecutable(v.Migration))
	}
	_, err := sovereign.ReadConfig(v.Config)
	add(plan.KeyConfig, err)
	return found
}

// checkExecutable asks the kernel whether this process may execute the file.
func checkExecutable(name string) error {
	path, err := lookpath.Find(name, os.Getenv("PATH"))
	if err != nil {
		return err // it names the file and PATH
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err // it names the operation and the file
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

// CheckFiles finds what is wrong with the files of version i: that they are there and may be executed or read. It reads
// the node's config, and of the programs nothing.
func CheckFiles(p *sequencer.Plan, i int) []sequencer.Finding {
	var found []sequencer.Finding
	for _, problem := range fileProblems(p.Versions[i]) {
		next := fmt.Sprintf("fix that file, or name another one as %s in %s", problem.key, p.File)
		if errors.Is(problem.err, fs.ErrNotExist) {
			next = fmt.Sprintf("put it into the image, or name another one as %s in %s", problem.key, p.File)
		}
		found = append(found, sequencer.Finding{Version: i, Severity: sequencer.SeverityError, What: fmt.Sprintf("%s: %s", problem.key, problem.err), Next: next})
	}
	return found
}

// Programs gives the files that the kernel will be asked to execute for version i, the node and its migration, by the
// keys of the plan: those with which CheckFiles finds nothing wrong.
func Programs(p *sequencer.Plan, i int) map[string]string {
	v := p.Versions[i]
	programs := map[string]string{}
	for key, name := range map[string]string{plan.KeyBinary: v.Binary, plan.KeyMigration: v.Migration} {
		if name == "" || checkExecutable(name) != nil {
			continue
		}
		if path, err := lookpath.Find(name, os.Getenv("PATH")); err == nil {
			programs[key] = path
		}
	}
	return programs
}
