package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"rollup-entrypoint/images"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/sovereign"
)

const (
	manifestUsage       = "entrypoint manifest write|verify [FLAGS]"
	manifestWriteUsage  = "entrypoint manifest write [--label KEY=VALUE]... [--root DIR] [--output FILE]"
	manifestVerifyUsage = "entrypoint manifest verify [--root DIR] [--manifest FILE] [--json]"
)

func manifestCommand(p program, args []string) int {
	if len(args) > 0 {
		switch args[0] {
		case "write":
			return manifestWrite(p, args[1:])
		case "verify":
			return manifestVerify(p, args[1:])
		case "-h", "--help":
			fmt.Fprintf(p.stdout, "Usage:\n  %s\n  %s\n", manifestWriteUsage, manifestVerifyUsage)
			return 0
		}
	}
	return usageError(p, "manifest", errors.New("want: "+manifestUsage))
}

// manifestWrite records what lies in an image, as a step of its build: it needs neither a shell nor a directory for
// temporary files.
func manifestWrite(p program, args []string) int {
	var root, output string
	var labels []string
	flags := newFlags("manifest write")
	flags.StringVar(&root, "root", images.Root, "`DIR` with the folder \"versions\", and in it a folder for each version")
	flags.StringVar(&output, "output", "", "write the manifest to `FILE`; manifest.json in the root if left out")
	flags.StringArrayVar(&labels, "label", nil, "record `KEY=VALUE` of the build, as org.opencontainers.image.revision=0a1b2c3; may be repeated")
	if code, done := parseOrHelp(p, flags, manifestWriteUsage, args); done {
		return code
	}
	if root == "" || flags.NArg() > 0 {
		return flags.usageError(p, errors.New("want: "+manifestWriteUsage))
	}
	options := images.RecordOptions{Skip: sovereign.WritesBesideConfig}
	var err error
	if options.Labels, err = parseLabels(labels); err != nil {
		return flags.usageError(p, err)
	}
	if output == "" {
		output = filepath.Join(root, images.ManifestFile)
	}
	verifier := images.Verifier{Root: root}
	for _, at := range verifier.Locate(output) {
		if verifier.Covers(at) {
			return flags.usageError(p, fmt.Errorf("--output is %s, which the manifest itself speaks of: name a file beside the folder of the versions", output))
		}
	}
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
	fmt.Fprintf(p.stdout, "%s: %s\n", output, extent(m))
	return 0
}

// parseLabels reads labels, each "key=value".
func parseLabels(texts []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, text := range texts {
		key, value, found := strings.Cut(text, "=")
		if !found || key == "" {
			return nil, fmt.Errorf("--label is %q, want KEY=VALUE", text)
		}
		if _, twice := labels[key]; twice {
			return nil, fmt.Errorf("--label names %q twice", key)
		}
		labels[key] = value
	}
	return labels, nil
}

// extent says how much a manifest covers.
func extent(m *images.Manifest) string {
	files, bytes := m.Count()
	return fmt.Sprintf("%s, %s, %d bytes", counted(len(m.Versions), "version"), counted(files, "file"), bytes)
}

// manifestVerify compares what lies in an image with its manifest. It changes nothing.
func manifestVerify(p program, args []string) int {
	var root, file string
	var asJSON bool
	flags := newFlags("manifest verify")
	flags.StringVar(&root, "root", images.Root, "`DIR` with the folder \"versions\", and in it a folder for each version")
	flags.StringVar(&file, "manifest", "", "the manifest `FILE`; manifest.json in the root if left out")
	flags.BoolVar(&asJSON, "json", false, "print what was found as JSON")
	if code, done := parseOrHelp(p, flags, manifestVerifyUsage, args); done {
		return code
	}
	if root == "" || flags.NArg() > 0 {
		return flags.usageError(p, errors.New("want: "+manifestVerifyUsage))
	}
	if file == "" {
		file = filepath.Join(root, images.ManifestFile)
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

// serious counts the differences that are not only a file more.
func serious(found []images.Difference) int {
	n := 0
	for _, d := range found {
		if !d.Extra {
			n++
		}
	}
	return n
}

// severityOf is what a difference means for a run.
func severityOf(d images.Difference) sequencer.Severity {
	if d.Extra {
		return sequencer.SeverityWarning
	}
	return sequencer.SeverityError
}

// printDifferences prints a table for a person, and a last line that says how it is.
func printDifferences(w io.Writer, m *images.Manifest, root string, found []images.Difference) {
	column := len("version")
	for _, d := range found {
		column = max(column, len(d.Version))
	}
	if len(found) > 0 {
		fmt.Fprintf(w, "%-8s %-*s  what, and what to do\n", "severity", column, "version")
	}
	for _, d := range found {
		printRow(w, column, string(severityOf(d)), d.Version, d.What, d.Next)
	}
	errs := serious(found)
	if len(found) > 0 {
		fmt.Fprintf(w, "%s, %s\n", counted(errs, "error"), counted(len(found)-errs, "warning"))
		return
	}
	fmt.Fprintf(w, "all as recorded: %s in %s\n", extent(m), root)
}

func printDifferencesJSON(w io.Writer, file string, found []images.Difference) error {
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
		out := difference{nil, d.Path, severityOf(d), d.What, d.Next}
		if d.Version != "" {
			out.Version = &d.Version
		}
		report.Differences = append(report.Differences, out)
	}
	return writeJSON(w, report)
}
