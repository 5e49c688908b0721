package preflight

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/images"
	"rollup-entrypoint/internal/regularfile"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/plan"
)

// Version finds what is wrong with version i: that its files are there and can be executed or read, and by depth what
// its programs need of the image, and what differs from the manifest. Nothing is wrong with a retired one: it has no files.
func (n *Inspection) Version(ctx context.Context, i int, depth sequencer.Depth) []sequencer.Finding {
	v := n.Plan.Versions[i]
	if v.Retired {
		return nil
	}
	var found, closer []sequencer.Finding
	add := func(key string, err error) {
		if err != nil {
			found = append(found, n.fileFinding(i, key, err))
		}
	}
	program := func(key, name string, env ...string) {
		path, err := checkExecutable(name)
		if add(key, err); err != nil || depth&sequencer.Programs == 0 {
			return
		}
		for _, p := range placeOf(env).Check(path) {
			closer = append(closer, findingOf(i, key+": ", p))
		}
	}
	program(plan.KeyBinary, v.Binary, v.Env...)
	if v.Migration != "" {
		program(plan.KeyMigration, v.Migration, slices.Concat(v.Env, v.MigrationEnv)...)
	}
	if len(v.Before) > 0 {
		program(plan.KeyBefore, v.Before[0], v.Env...)
	}
	_, err := n.config(i)
	add(plan.KeyConfig, err)
	add(plan.KeyArgs, checkGenesis(plan.Genesis(v.Args)))
	if err := checkGenesis(plan.Genesis(n.NodeArgs)); err != nil {
		found = append(found, sequencer.Finding{Version: i, Severity: sequencer.SeverityError, What: "argument after --: " + err.Error(), Next: "fix that file, or name another one"})
	}
	found = append(found, closer...)
	if depth&sequencer.Manifest != 0 {
		found = append(found, n.compareVersion(ctx, i, depth)...)
	}
	return found
}

// fileFinding is what is wrong with the file that a key of the plan names.
func (n *Inspection) fileFinding(i int, key string, err error) sequencer.Finding {
	next := fmt.Sprintf("fix that file, or name another one as %s in %s", key, n.Plan.File)
	if errors.Is(err, fs.ErrNotExist) {
		next = fmt.Sprintf("put it into the image, or name another one as %s in %s", key, n.Plan.File)
	}
	return sequencer.Finding{Version: i, Severity: sequencer.SeverityError, What: key + ": " + err.Error(), Next: next}
}

// findingOf is a problem of a file of version i, or of all versions.
func findingOf(i int, prefix string, p images.Problem) sequencer.Finding {
	return sequencer.Finding{Version: i, Severity: SeverityOf(p), What: prefix + p.What, Next: p.Next}
}

// SeverityOf says what a problem means for a run.
func SeverityOf(p images.Problem) sequencer.Severity {
	if p.Sure {
		return sequencer.SeverityError
	}
	return sequencer.SeverityWarning
}

// placeOf is where a program with these NAME=VALUE pairs in its environment runs: they win over ours, the last one first.
func placeOf(env []string) *images.Place {
	place := &images.Place{Path: os.Getenv("PATH"), LibraryPath: os.Getenv("LD_LIBRARY_PATH")}
	for _, pair := range env {
		name, value, _ := strings.Cut(pair, "=")
		switch name {
		case "PATH":
			place.Path = value
		case "LD_LIBRARY_PATH":
			place.LibraryPath = value
		}
	}
	return place
}

// checkGenesis finds a genesis that the node would wait for without end, or never read. If it is missing that is the
// node's own affair: the newest ones need it for an empty state only.
func checkGenesis(path string) error {
	file, err := regularfile.Open(path)
	if err == nil {
		file.Close()
	}
	if errors.Is(err, regularfile.ErrNotRegular) {
		return fmt.Errorf("cannot read the genesis: %w", err)
	}
	return nil
}

// checkExecutable gives the file that is executed as the program name, and asks the kernel whether this process may.
func checkExecutable(name string) (string, error) {
	path, err := find(name)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", err // it names the operation and the file
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("cannot execute %s: %w", path, regularfile.Check(info.Mode()))
	case info.Size() == 0:
		return "", fmt.Errorf("%s is empty, want a program", path)
	// Root passes access(2) for X_OK only if some execute bit is set; others by owner, group and mount options.
	case errors.Is(unix.Access(path, unix.X_OK), unix.EACCES):
		return "", fmt.Errorf("%s is not executable for user %d (mode %s)", path, os.Getuid(), info.Mode().Perm())
	}
	return path, nil
}
