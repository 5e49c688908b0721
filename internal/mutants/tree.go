package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// tree is the work tree, and beside it a directory for what is laid over it.
type tree struct{ root, over string }

// openTree finds the root of the module, wherever in it we are.
func openTree() (*tree, error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return nil, fmt.Errorf("cannot find the module: %w", err)
	}
	over, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return nil, err
	}
	return &tree{root: filepath.Dir(strings.TrimSpace(string(mod))), over: over}, nil
}

func (t *tree) close() { _ = os.RemoveAll(t.over) }

// overlay writes the file with the fault, and gives the name of the JSON text that has the go command read it.
func (t *tree) overlay(f fault) (string, error) {
	original := filepath.Join(t.root, f.file)
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	if text, err = f.apply(text); err != nil {
		return "", err
	}
	mutant := filepath.Join(t.over, f.name+".go")
	if err := os.WriteFile(mutant, text, 0o644); err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: mutant}})
	if err != nil {
		return "", err
	}
	name := filepath.Join(t.over, f.name+".json")
	return name, os.WriteFile(name, overlay, 0o644)
}

// apply builds the fault into the text of its file.
func (f fault) apply(text []byte) ([]byte, error) {
	if n := bytes.Count(text, []byte(f.old)); n != 1 {
		return nil, fmt.Errorf("fault %s no longer applies: its old text must stand once in %s, and stands there %d times:\n%s", f.name, f.file, n, f.old)
	}
	return bytes.Replace(text, []byte(f.old), []byte(f.new), 1), nil
}

// compiles is an error where the package of the fault does not compile with the overlay: that catches no fault.
func (t *tree) compiles(overlay string, f fault) error {
	out, err := t.command(overlay, "build", "-tags", tags, "-o", os.DevNull, "./"+path.Dir(f.file)).CombinedOutput()
	if err != nil {
		return errors.New("it does not compile:\n" + string(out))
	}
	return nil
}

// command is a go command under an overlay, empty for none. It is given by the environment, so that it also reaches the
// go commands that tests run, which build the programs that they test.
func (t *tree) command(overlay string, args ...string) *exec.Cmd {
	cmd := exec.Command("go", args...)
	cmd.Dir = t.root
	flags := os.Getenv("GOFLAGS")
	if overlay != "" {
		flags += " -overlay=" + overlay
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS="+strings.TrimSpace(flags))
	return cmd
}
