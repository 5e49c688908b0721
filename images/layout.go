package images

import (
	"os"
	"path/filepath"
)

// The layout of an image. What runs is baked in below Root; what changes lies on the volume.
const (
	// Root is the folder with all that an image brings.
	Root = "/opt/rollup"
	// ManagerFile is the config, in Root. Where it is absent, the folders of VersionsDir are the config.
	ManagerFile = "manager.json"
	// VersionsDir holds a folder for each version, in Root.
	VersionsDir = "versions"
	// VersionFile is what a folder says of its version where the folders are the config.
	VersionFile = "version.json"
	// ManifestFile is the manifest, in Root.
	ManifestFile = "manifest.json"
	// Checkpoint is the checkpoint on the volume.
	Checkpoint = "/data/checkpoint.json"
)

// HasLayout reports whether root has the layout of an image: a config, or folders of versions.
func HasLayout(root string) bool {
	for _, name := range []string{ManagerFile, VersionsDir} {
		if _, err := os.Stat(filepath.Join(root, name)); err == nil {
			return true
		}
	}
	return false
}
