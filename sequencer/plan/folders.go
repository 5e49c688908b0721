package plan

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rollup-entrypoint/internal/strictjson"
)

// The names in a directory of versions, and in the folder of each version.
const (
	managerFile    = "manager.json"
	versionsFolder = "versions"
	versionFile    = "version.json"
	binaryFile     = "rollup"
	configFile     = "config.toml"
	migrationFile  = "migration"
	genesisFile    = "genesis.json"
)

// genesisFlag is the node's flag for its genesis.
const genesisFlag = "--genesis-path"

// folderKeys are those of a version.json: a folder says by its names what the other keys of a config are for.
var folderKeys = []string{keyStart, keyStop, keyArgs, keyEnv, keyInterrupted, keyAPIPath, keyAsk}

// loadDirectory reads the plan of a directory, which is either a manager.json or, without one, a folder for each version
// in versions/. Both at once are refused: nobody could say which of them counts.
func loadDirectory(dir string) (*Plan, error) {
	manager := filepath.Join(dir, managerFile)
	folders, err := versionFolders(filepath.Join(dir, versionsFolder))
	if err != nil {
		return nil, unreadableConfig(err)
	}
	described := slices.ContainsFunc(folders, func(f folder) bool { return f.described })
	_, err = os.Stat(manager)
	switch {
	case err == nil && described:
		return nil, &Error{
			What: fmt.Sprintf("%s has both a %s and, in its %s folders, a %s", dir, managerFile, versionsFolder, versionFile),
			Next: fmt.Sprintf("keep one of them: remove %s, or each %s", manager, versionFile),
		}
	case err == nil:
		return loadFile(manager)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, unreadableConfig(err)
	case len(folders) == 0:
		return nil, unreadableConfig(fmt.Errorf("%s has neither a %s nor a folder of a version in %s/", dir, managerFile, versionsFolder))
	}
	versions, found := readFolders(folders)
	if len(found) > 0 {
		return nil, &Error{filepath.Join(dir, versionsFolder), found, "fix the folders and start again"}
	}
	return &Plan{File: dir, Versions: versions}, nil
}

// folder is the folder of a version.
type folder struct {
	path string
	// described: there is a version.json.
	described bool
}

// versionFolders lists the folders in dir. Hidden ones are none: tools leave such behind.
func versionFolders(dir string) ([]folder, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the operation and the directory
	}
	var folders []folder
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path) // a folder may be linked to
		if strings.HasPrefix(e.Name(), ".") || err != nil || !info.IsDir() {
			continue
		}
		_, err = os.Lstat(filepath.Join(path, versionFile))
		folders = append(folders, folder{path, err == nil})
	}
	return folders, nil
}

// readFolders reads each folder and brings them into the order of their start heights. A version without a stop height
// ends before the next one starts, so that adding a version is adding a folder.
func readFolders(folders []folder) ([]Version, Problems) {
	type read struct {
		folder
		entry
	}
	var all []read
	for _, f := range folders {
		e, _ := f.read(0)
		all = append(all, read{f, e})
	}
	// The first one has none. Two of the same height are reported below.
	slices.SortStableFunc(all, func(a, b read) int { return cmp.Compare(a.Start, b.Start) })
	var found Problems
	var entries []entry
	for i, r := range all {
		e, problems := r.read(i)
		found = append(found, problems...)
		entries = append(entries, e)
	}
	for i := range entries[:len(entries)-1] {
		if e, next := &entries[i], entries[i+1]; !e.hasStop && !e.failed[keyStop] && next.hasStart && next.Start > 0 {
			e.Stop, e.hasStop = next.Start-1, true
		}
	}
	if !slices.ContainsFunc(entries, func(e entry) bool { return e.failed[keyStart] }) {
		found = append(found, heightProblems(entries)...) // with one that is not known, nothing can be said of the others
	}
	var versions []Version
	for _, e := range entries {
		versions = append(versions, e.Version)
	}
	return versions, found
}

// read reads the folder as version i.
func (f folder) read(i int) (entry, Problems) {
	name := filepath.Base(f.path)
	e := entry{failed: map[string]bool{}}
	e.Name, e.OnInterrupted = name, Rerun
	e.Binary, e.Config = filepath.Join(f.path, binaryFile), filepath.Join(f.path, configFile)
	found := f.readDescription(i, &e)
	add := func(format string, args ...any) {
		found = append(found, Label(i, name)+": "+fmt.Sprintf(format, args...))
	}
	entries, err := os.ReadDir(f.path)
	if err != nil {
		add("%s", err)
		e.failed[keyStart], e.failed[keyStop] = true, true
		return e, found
	}
	for _, file := range entries {
		path := filepath.Join(f.path, file.Name())
		switch {
		case file.Name() == migrationFile:
			e.Migration = path
		case file.Name() == genesisFile:
			if !givesGenesis(e.Args) {
				e.Args = append([]string{genesisFlag, path}, e.Args...)
			}
		// A migration that is not run is worse than one file too many.
		case strings.Contains(strings.ToLower(file.Name()), "migrat") && !file.IsDir():
			add("%s would not be run: a migration is named %q; call it so, or move it elsewhere", path, migrationFile)
		}
	}
	return e, found
}

// givesGenesis reports whether args name a genesis already: the node takes its flag once.
func givesGenesis(args []string) bool {
	return slices.ContainsFunc(args, func(arg string) bool { return arg == genesisFlag || strings.HasPrefix(arg, genesisFlag+"=") })
}

// readDescription reads the version.json.
func (f folder) readDescription(i int, e *entry) Problems {
	path := filepath.Join(f.path, versionFile)
	fail := func(format string, args ...any) Problems {
		// One problem is enough: do not report its heights as missing too.
		e.failed[keyStart], e.failed[keyStop] = true, true
		return Problems{Label(i, e.Name) + ": " + fmt.Sprintf(format, args...)}
	}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(`%s is missing: write {} for the first version, {"start_height": N} for any other`, path)
	case err != nil:
		return fail("%s", err)
	}
	r := planReader{strictjson.NewReader(text)}
	if v, ok := r.Document(); ok && v.Kind() == "object" {
		where := versionFields{r: r, fields: r.Object(v, versionFile, folderKeys), entry: e}
		where.readSettings(i)
	} else if ok {
		r.Problem(v.At, "%s is %s, want an object", versionFile, v.AKind())
	}
	var found Problems
	for _, problem := range r.Problems {
		found = append(found, path+": "+problem)
	}
	if len(found) > 0 && !e.hasStart {
		e.failed[keyStart], e.failed[keyStop] = true, true
	}
	return found
}
