// Testlog reads the output of one or more runs of 'go test -json' and prints what is worth reading: what failing tests
// wrote, a line for each package, and every line that is not JSON. It fails if a test was skipped and ran in none of
// the runs, unless the file given as its argument lists the test with a reason: what did not run was not checked.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// event has the fields of a test2json event that are used here.
type event struct {
	Action, Package, Test, Output string
}

// test names a test of a package; with an empty name it is the package itself.
type test struct{ pkg, name string }

type report struct {
	// written has what a test wrote, until it has passed.
	written map[test]*strings.Builder
	// skipped are tests that were skipped in a run, in order, and ran are those that passed or failed in one.
	skipped []test
	ran     map[test]bool
}

func main() {
	allowed := readNames(os.Args[1])
	r := report{written: map[test]*strings.Builder{}, ran: map[test]bool{}}
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadString('\n')
		var e event
		if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
			fmt.Print(line)
		} else {
			r.note(e)
		}
		if err != nil {
			break
		}
	}
	code := 0
	for _, skipped := range r.skipped {
		if !r.ran[skipped] && !allowed[skipped.name] {
			fmt.Printf("skipped, and not in %s: %s %s\n", os.Args[1], skipped.pkg, skipped.name)
			code = 1
		}
	}
	os.Exit(code)
}

func (r *report) note(e event) {
	key := test{e.Package, e.Test}
	if e.Action == "pass" || e.Action == "fail" {
		r.ran[key] = true
	}
	switch e.Action {
	case "build-output":
		fmt.Print(e.Output)
	case "output":
		if r.written[key] == nil {
			r.written[key] = &strings.Builder{}
		}
		r.written[key].WriteString(e.Output)
	case "pass", "skip":
		if e.Action == "skip" && e.Test != "" {
			r.skipped = append(r.skipped, key)
		}
		if e.Test == "" && e.Action == "pass" {
			fmt.Print(r.summary(key))
		}
		delete(r.written, key)
	case "fail":
		r.fail(key)
	}
}

// fail prints what a failed test wrote. For a failed package it also prints what its unfinished tests wrote: it died in
// one of them.
func (r *report) fail(key test) {
	for other, text := range r.written {
		if key.name == "" && other.pkg == key.pkg && other.name != "" {
			fmt.Print(text)
			delete(r.written, other)
		}
	}
	if text := r.written[key]; text != nil {
		fmt.Print(text)
		delete(r.written, key)
	}
}

// summary is the last line that a package wrote: its result, with the coverage.
func (r *report) summary(key test) string {
	if r.written[key] == nil {
		return ""
	}
	text := strings.TrimSuffix(r.written[key].String(), "\n")
	return text[strings.LastIndex(text, "\n")+1:] + "\n"
}

// readNames returns the first word of each line that is not a comment.
func readNames(path string) map[string]bool {
	text, err := os.ReadFile(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	names := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 0 && !strings.HasPrefix(line, "#") {
			names[words[0]] = true
		}
	}
	return names
}
