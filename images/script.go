package images

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"rollup-entrypoint/internal/lookpath"
)

const (
	// scriptLimit is how much of a #! line the kernel reads, including its end (BINPRM_BUF_SIZE, since Linux 5.1).
	scriptLimit = 256
	// scriptDepth is how often an interpreter may be a script itself.
	scriptDepth = 5
)

// checkScript looks for the interpreter of a file that is not an ELF file.
func (p *Place) checkScript(path, head string, depth int) []Problem {
	line, isScript := strings.CutPrefix(head, "#!")
	if !isScript {
		return []Problem{sure(path+" is neither an ELF program nor a script with a #! line", "name a program; a script's first line names its interpreter: #!/bin/sh")}
	}
	interpreter, argument, err := splitScript(line, len(head) == scriptLimit)
	if err != nil {
		return []Problem{sure(fmt.Sprintf("the #! line of %s %s", path, err), "give it the path of an interpreter: #!/bin/sh")}
	}
	if depth >= scriptDepth {
		return []Problem{sure(path+" is a script for a script for a script: the kernel gives up", "name a program as its interpreter")}
	}
	if err := p.executable(interpreter); err != nil {
		return []Problem{p.noInterpreter(path, interpreter, err)}
	}
	found := p.check(interpreter, depth+1)
	if filepath.Base(interpreter) == "env" {
		found = append(found, p.checkEnv(path, argument, depth)...)
	}
	return found
}

// splitScript splits a #! line as the kernel does (load_script in fs/binfmt_script.c): into an interpreter, and all the rest
// as one argument. full: the line may continue beyond what the kernel reads.
func splitScript(text string, full bool) (interpreter, argument string, err error) {
	line, _, ended := strings.Cut(text, "\n")
	line = strings.TrimLeft(line, " \t")
	at := strings.IndexAny(line, " \t\x00")
	switch {
	case at < 0 && full && !ended && line != "":
		return "", "", fmt.Errorf("is longer than the %d bytes that the kernel reads", scriptLimit)
	case line == "" || at == 0:
		return "", "", errors.New("names no interpreter")
	case at < 0:
		return line, "", nil
	}
	rest, _, _ := strings.Cut(line[at:], "\x00")
	return line[:at], strings.Trim(rest, " \t"), nil
}

func (p *Place) noInterpreter(path, interpreter string, err error) Problem {
	shown, carriage := strings.CutSuffix(interpreter, "\r")
	switch {
	case carriage:
		return sure(fmt.Sprintf("the #! line of %s ends in a carriage return, so that %s is not found", path, shown), "give the file Unix line ends: sed -i 's/\\r$//' "+path)
	case errors.Is(err, fs.ErrNotExist):
		return sure(fmt.Sprintf("the interpreter %s, named in the #! line of %s, does not exist", interpreter, path),
			"install it in the image, or name one that exists")
	case errors.Is(err, fs.ErrPermission):
		return sure(fmt.Sprintf("the interpreter %s, named in the #! line of %s, is not executable for this user", interpreter, path), "make it executable: chmod 755 "+interpreter)
	}
	return sure(fmt.Sprintf("the interpreter %s, named in the #! line of %s, cannot be used: %s", interpreter, path, err), "name a program")
}

// checkEnv looks for the program that env(1) will search for in PATH.
func (p *Place) checkEnv(path, argument string, depth int) []Problem {
	name := argument
	if rest, split := strings.CutPrefix(argument, "-S"); split {
		name = ""
		for _, word := range strings.Fields(rest) {
			if !strings.Contains(word, "=") {
				name = word
				break
			}
		}
	}
	name, carriage := strings.CutSuffix(name, "\r")
	switch {
	case carriage:
		return []Problem{p.noInterpreter(path, name+"\r", fs.ErrNotExist)}
	case name == "" || strings.HasPrefix(name, "-"):
		return nil // one of its options: we do not know what follows
	}
	file, err := lookpath.Find(name, p.Path)
	file = strings.TrimPrefix(file, p.root)
	if err == nil && p.executable(file) == nil {
		return p.check(file, depth+1)
	}
	next := "install it in the image, or set PATH"
	if strings.Contains(name, " ") {
		next = "env takes all of it as one name: use #!/usr/bin/env -S " + argument
	}
	return []Problem{sure(fmt.Sprintf("the interpreter %q, named in the #! line of %s, is not found in PATH=%s", name, path, p.Path), next)}
}
