// Package layout names what is in an image, for those who record it, read the plan from it and verify it. What runs is
// baked in below Root; what changes is on the volume. It knows nothing of what the files say.
package layout

import (
	"os"
	"path/filepath"
)

const (
	// Root is the folder with everything that the image brings.
	Root = "/opt/rollup"
	// ManagerFile is the config, in Root. If it is absent, the folders in VersionsDir are the config.
	ManagerFile = "manager.json"
	// VersionsDir holds a folder for each version, in Root.
	VersionsDir = "versions"
	// VersionFile is what a folder says about its version if the folders are the config.
	VersionFile = "version.json"
	// ManifestFile is the manifest, in Root.
	ManifestFile = "manifest.json"
	// Checkpoint is the checkpoint on the volume.
	Checkpoint = "/data/checkpoint.json"
)

// In reports whether root has the layout of an image: a config, or folders of versions.
func In(root string) bool {
	for _, name := range []string{ManagerFile, VersionsDir} {
		if _, err := os.Stat(filepath.Join(root, name)); err == nil {
			return true
		}
	}
	return false
}
