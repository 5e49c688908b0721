package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"rollup-entrypoint/images"
	"rollup-entrypoint/internal/layout"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/sovereign"
)

const manifestWriteUsage = "entrypoint manifest write [--label KEY=VALUE]... [--root DIR] [--output FILE]"

// defaultManifest is that of an image with the usual layout.
const defaultManifest = layout.Root + "/" + layout.ManifestFile

// registerManifest registers the flag of the commands that compare versions with a manifest.
func registerManifest(flags *pflag.FlagSet, file *string) {
	flags.StringVar(file, "manifest", defaultManifest, "verify the versions with the image manifest `FILE`; the default is used only if it exists (empty: off)")
}

// manifestWrite records the files of an image, as a step of its build: it needs neither a shell nor a directory for
// temporary files.
func manifestWrite(flags *flagSet) func(p program) int {
	var root, output string
	var labels []string
	options := images.RecordOptions{Skip: sovereign.WritesBesideConfig}
	flags.StringVar(&root, "root", layout.Root, "`DIR` with the folder \"versions\", which has a folder for each version")
	flags.StringVar(&output, "output", "", "write the manifest to `FILE` (default: manifest.json in the root)")
	flags.StringArrayVar(&labels, "label", nil, "record `KEY=VALUE` of the build, such as org.opencontainers.image.revision=0a1b2c3; may be repeated")
	flags.check = func() (err error) {
		if output == "" {
			output = filepath.Join(root, layout.ManifestFile)
		}
		if err := flags.want(root != "" && flags.NArg() == 0); err != nil {
			return err
		}
		if options.Labels, err = parseLabels(labels); err != nil {
			return err
		}
		verifier := images.Verifier{Root: root}
		for _, at := range verifier.Locate(output) {
			if verifier.Covers(at) {
				return fmt.Errorf("--output is %s, which the manifest itself covers: name a file beside the folder of the versions", output)
			}
		}
		return nil
	}
	return func(p program) int {
		labelRetired(root, options.Labels)
		m, err := images.RecordManifest(context.Background(), root, options)
		if err == nil {
			err = images.WriteManifest(output, m)
		}
		if err != nil {
			return fail(p, &sequencer.Failure{
				Code: sequencer.CodeMismatch, What: "the manifest cannot be written", Err: err, Safe: "nothing was changed",
				Next: "fix that, and write it after the last version was copied into the image",
			})
		}
		fmt.Fprintf(p.stdout, "%s: %s\n", output, m.Extent())
		return 0
	}
}

// retiredLabel comes before the name of a retired version in the labels of a manifest.
const retiredLabel = "rollup-entrypoint.retired."

// labelRetired adds a label for each retired version of the plan in root: the last image that had its files. The plan may
// as well be elsewhere, and a plan with mistakes is for 'entrypoint check'.
func labelRetired(root string, labels map[string]string) {
	plan, err := sequencer.LoadPlan(root)
	if err != nil {
		return
	}
	for _, v := range plan.Versions {
		if _, given := labels[retiredLabel+v.Name]; v.Retired && !given {
			labels[retiredLabel+v.Name] = v.LastImage
		}
	}
}

func parseLabels(texts []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, text := range texts {
		key, value, found := strings.Cut(text, "=")
		if !found || key == "" {
			return nil, errors.New("--label: want KEY=VALUE")
		}
		if _, twice := labels[key]; twice {
			return nil, errors.New("--label names a key twice")
		}
		labels[key] = value
	}
	return labels, nil
}
