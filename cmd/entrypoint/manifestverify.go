package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"rollup-entrypoint/images"
	"rollup-entrypoint/internal/layout"
	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/internal/preflight"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/sovereign"
)

const manifestVerifyUsage = "entrypoint manifest verify [--root DIR] [--manifest FILE] [--json]"

// manifestVerify compares the files of an image with their manifest. It changes nothing.
func manifestVerify(flags *flagSet) func(p program) int {
	var root, file string
	var asJSON bool
	flags.StringVar(&root, "root", layout.Root, "`DIR` with the folder \"versions\", which has a folder for each version")
	flags.StringVar(&file, "manifest", "", "the manifest `FILE` (default: manifest.json in the root)")
	flags.BoolVar(&asJSON, "json", false, "print the findings as JSON")
	flags.check = func() error { return flags.want(root != "" && flags.NArg() == 0) }
	return func(p program) int {
		if file == "" {
			file = filepath.Join(root, layout.ManifestFile)
		}
		m, err := images.ReadManifest(file)
		if err != nil {
			return fail(p, &sequencer.Failure{
				Code: sequencer.CodeMismatch, What: "the manifest cannot be used", Err: err, Safe: "nothing was compared",
				Next: "write it with 'entrypoint manifest write' when the image is built, or name another one with --manifest",
			})
		}
		verifier := images.Verifier{Root: root, Manifest: m, Skip: sovereign.WritesBesideConfig}
		found, err := verifier.All(context.Background())
		if err == nil && asJSON {
			err = printDifferencesJSON(p.stdout, file, found)
		} else if err == nil {
			printDifferences(p.stdout, m, root, found)
		}
		switch {
		case err != nil:
			return fail(p, err)
		case serious(found) > 0:
			return sequencer.CodeMismatch
		}
		return 0
	}
}

// serious counts the problems other than an extra file.
func serious(found []images.Problem) int {
	n := 0
	for _, d := range found {
		if d.Sure {
			n++
		}
	}
	return n
}

// printDifferences prints a table for a person, and a last line with the result.
func printDifferences(w io.Writer, m *images.Manifest, root string, found []images.Problem) {
	var rows []row
	for _, d := range found {
		rows = append(rows, row{preflight.SeverityOf(d), d.Version, d.What, d.Next})
	}
	printTable(w, rows)
	errs := serious(found)
	if len(found) > 0 {
		fmt.Fprintf(w, "%s, %s\n", plain.Count(errs, "error"), plain.Count(len(found)-errs, "warning"))
		return
	}
	fmt.Fprintf(w, "everything matches the manifest: %s in %s\n", m.Extent(), root)
}

func printDifferencesJSON(w io.Writer, file string, found []images.Problem) error {
	type difference struct {
		Version  *string            `json:"version"`
		Path     string             `json:"path"`
		Severity sequencer.Severity `json:"severity"`
		What     string             `json:"what"`
		Next     string             `json:"next"`
	}
	report := struct {
		OK          bool         `json:"ok"`
		Manifest    string       `json:"manifest"`
		Differences []difference `json:"differences"`
	}{serious(found) == 0, file, []difference{}}
	for _, d := range found {
		out := difference{nil, d.Path, preflight.SeverityOf(d), d.What, d.Next}
		if d.Version != "" {
			out.Version = &d.Version
		}
		report.Differences = append(report.Differences, out)
	}
	return writeJSON(w, report)
}
