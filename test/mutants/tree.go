package main

import (
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
func (t *tree) overlay(m mutant) (string, error) {
	file := filepath.Join(t.over, m.name+".go")
	if err := os.WriteFile(file, m.text, 0o644); err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(t.root, m.file): file}})
	if err != nil {
		return "", err
	}
	name := filepath.Join(t.over, m.name+".json")
	return name, os.WriteFile(name, overlay, 0o644)
}

// compiles is an error where the package of the mutant does not compile with the overlay: that catches no fault.
func (t *tree) compiles(overlay string, m mutant) error {
	out, err := t.command(overlay, "build", "-tags", tags, "-o", os.DevNull, "./"+path.Dir(m.file)).CombinedOutput()
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
