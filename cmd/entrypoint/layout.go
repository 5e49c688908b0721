package main

import (
	"os"
	"path/filepath"

	"rollup-entrypoint/images"
)

// useLayout fills in what was not given, where this is an image with the layout of package images: there no flag is
// needed. What was given empty stays so, and is refused as before.
func (fs *flagSet) useLayout(config, checkpoint *string) {
	if !images.HasLayout(images.Root) {
		return
	}
	if !fs.given("config") {
		*config = images.Root
	}
	if !fs.given("checkpoint-file") {
		*checkpoint = images.Checkpoint
	}
}

// volumeThere reports whether the directory of the checkpoint exists. Where an image is built there is none yet.
func volumeThere(checkpoint string) bool {
	_, err := os.Stat(filepath.Dir(checkpoint))
	return err == nil
}
