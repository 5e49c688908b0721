package plan

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"rollup-entrypoint/internal/layout"
	"rollup-entrypoint/internal/regularfile"
	"rollup-entrypoint/internal/strictjson"
)

// The names in the folder of a version, besides its version.json.
const (
	binaryFile    = "rollup"
	configFile    = "config.toml"
	migrationFile = "migration"
	genesisFile   = "genesis.json"
)

// genesisFlag is the node's flag for its genesis.
const genesisFlag = "--genesis-path"

// folderKeys are the keys of a version.json. What the other keys of a config say, a folder says by its names.
var folderKeys = []string{
	keySchema, keyStart, keyStop, KeyArgs, keyEnv, KeyBefore, keyMigrationArgs, keyMigrationEnv, keyInterrupted, keyAPIPath, keyAsk,
	keyRetired, keyLastImage,
}

// loadDirectory reads the plan of a directory: either its manager.json or, without one, a folder for each version in
// versions/. Both at once are refused, because nobody could say which of them is meant.
func loadDirectory(dir string) (*Plan, error) {
	manager := filepath.Join(dir, layout.ManagerFile)
	folders, err := versionFolders(filepath.Join(dir, layout.VersionsDir))
	if err != nil {
		return nil, unreadableConfig(err)
	}
	described := slices.ContainsFunc(folders, func(f folder) bool { return f.described })
	_, err = os.Stat(manager)
	switch {
	case err == nil && described:
		return nil, &Error{
			What: fmt.Sprintf("%s has both a %s and, in its %s folders, a %s", dir, layout.ManagerFile, layout.VersionsDir, layout.VersionFile),
			Next: fmt.Sprintf("keep one of them: remove %s, or each %s", manager, layout.VersionFile),
		}
	case err == nil:
		return loadFile(manager)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, unreadableConfig(err)
	case regularfile.IsEmptyDirectory(dir):
		_, err = regularfile.Open(dir) // its error says how that can happen
		return nil, unreadableConfig(err)
	case len(folders) == 0:
		return nil, unreadableConfig(fmt.Errorf("%s has neither a %s nor a version folder in %s/", dir, layout.ManagerFile, layout.VersionsDir))
	}
	versions, found := readFolders(folders)
	if len(found) > 0 {
		return nil, unusable(found)
	}
	return &Plan{File: dir, Versions: versions}, nil
}

// folder is the folder of a version.
type folder struct {
	path string
	// described: there is a version.json.
	described bool
}

// versionFolders lists the folders in dir, without hidden ones, which tools leave behind.
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
		info, err := os.Stat(path) // it may be a link to a folder
		if strings.HasPrefix(e.Name(), ".") || err != nil || !info.IsDir() {
			continue
		}
		_, err = os.Lstat(filepath.Join(path, layout.VersionFile))
		folders = append(folders, folder{path, err == nil})
	}
	return folders, nil
}

// byStart sorts by start height. Sorting such a large type with package slices instead would add 10 kB to the program.
type byStart []entry

func (e byStart) Len() int           { return len(e) }
func (e byStart) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e byStart) Less(i, j int) bool { return e[i].Start < e[j].Start }

// readFolders reads each folder and sorts them by start height. A version without a stop height ends before the next
// one starts, so that adding a version is adding a folder.
func readFolders(folders []folder) ([]Version, Problems) {
	var entries []entry
	var found Problems
	for _, f := range folders {
		e, problems := f.read()
		entries, found = append(entries, e), append(found, problems...)
	}
	// The first one has no start height. Two with the same height are reported below.
	sort.Stable(byStart(entries))
	if !slices.ContainsFunc(entries, func(e entry) bool { return e.failed[keyStart] }) { // otherwise nothing can be said about the others
		found = append(found, fillStops(entries)...)
		found = append(found, chainProblems(entries)...)
	}
	return versionsOf(entries), found
}

// fillStops gives each version without a stop height the one before the next version's start. If there is no such
// height, it says why, in numbers that are in the files.
func fillStops(entries []entry) Problems {
	var found Problems
	for i := range entries[:len(entries)-1] {
		e, next := &entries[i], &entries[i+1]
		problem := ""
		switch {
		case !next.hasStart && !e.hasStart:
			problem = fmt.Sprintf("start_height is missing, as it is in %s: only one version starts from genesis", e.label)
		case next.hasStart && next.Start == e.Start && e.hasStart:
			problem = fmt.Sprintf("start_height is %d, as it is in %s: give each version its own", next.Start, e.label)
		case next.hasStart && next.Start < 2:
			problem = fmt.Sprintf("start_height is %d, want 2 or more: the version before it makes at least one block", next.Start)
		case !e.hasStop && !e.failed[keyStop] && next.hasStart:
			e.Stop, e.hasStop = next.Start-1, true
		}
		if problem != "" {
			found = append(found, next.label+": "+problem)
			next.failed[keyStart], e.failed[keyStop] = true, true // one problem is enough
		}
	}
	return found
}

func (f folder) read() (entry, Problems) {
	e := entry{label: filepath.Join(f.path, layout.VersionFile), failed: map[string]bool{}}
	e.Name, e.OnInterrupted = filepath.Base(f.path), Rerun
	found := f.readDescription(&e)
	if !e.Retired {
		e.Binary, e.Config = filepath.Join(f.path, binaryFile), filepath.Join(f.path, configFile)
	}
	entries, err := os.ReadDir(f.path)
	if err != nil {
		e.failed[keyStart], e.failed[keyStop] = true, true
		return e, append(found, err.Error())
	}
	for _, file := range entries {
		path := filepath.Join(f.path, file.Name())
		switch {
		case e.Retired && slices.Contains([]string{binaryFile, configFile, migrationFile}, file.Name()):
			found = append(found, fmt.Sprintf("%s is there, but the version is retired: remove it, or %q from %s", path, keyRetired, e.label))
		case file.Name() == migrationFile:
			e.Migration = path
		case file.Name() == genesisFile:
			// That of a retired version may be what the arguments of another one name.
			if !e.Retired && !givesGenesis(e.Args) {
				e.Args = append([]string{genesisFlag, path}, e.Args...)
			}
		// A migration that does not run is worse than one refused file too many.
		case strings.Contains(strings.ToLower(file.Name()), "migrat") && !file.IsDir():
			found = append(found, fmt.Sprintf("%s would not run: a migration must be named %q; rename it, or move it elsewhere", path, migrationFile))
		}
	}
	return e, found
}

// givesGenesis reports whether args name a genesis already: the node accepts its flag once.
func givesGenesis(args []string) bool {
	return slices.ContainsFunc(args, func(arg string) bool { return arg == genesisFlag || strings.HasPrefix(arg, genesisFlag+"=") })
}

func (f folder) readDescription(e *entry) Problems {
	// One problem is enough: do not report its heights as missing too.
	fail := func(found ...string) Problems {
		e.failed[keyStart], e.failed[keyStop] = true, true
		return found
	}
	text, err := regularfile.Read(e.label, sizeLimit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(e.label + ` is missing: write {} for the first version, {"start_height": N} for any other`)
	case err != nil:
		return fail(err.Error())
	}
	r := planReader{strictjson.NewReader(text)}
	if v, ok := r.Document(); ok && v.Kind() == "object" {
		fields := versionFields{r: r, fields: r.Object(v, "", folderKeys), entry: e}
		fields.text(keySchema) // it means nothing to us
		if fields.readRetired(); !e.Retired {
			fields.readSettings()
		}
	} else if ok {
		r.Problem(v.At, "the file is %s, want an object", v.AKind())
	}
	if len(r.Problems) > 0 && !e.hasStart {
		return fail(in(e.label, r.Problems)...)
	}
	return in(e.label, r.Problems)
}
