package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// mutant is a fault that is built into a file.
type mutant struct {
	fault
	// file is the name of the file from the root of the module, text its content with the fault.
	file string
	text []byte
}

// mutantsOf builds each fault into the file under root that has its declaration.
func mutantsOf(root string, chosen []fault) ([]mutant, error) {
	mutants, errs := make([]mutant, len(chosen)), make([]error, len(chosen))
	for i, f := range chosen {
		var err error
		if mutants[i], err = f.build(root); err != nil {
			errs[i] = fmt.Errorf("fault %s no longer applies: %w", f.name, err)
		}
	}
	return mutants, errors.Join(errs...)
}

func (f fault) build(root string) (mutant, error) {
	dir, name, _ := strings.Cut(f.in, ".")
	files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		return mutant{}, err
	}
	m, found := mutant{fault: f}, 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return mutant{}, err
		}
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, file, text, parser.SkipObjectResolution)
		if err != nil {
			return mutant{}, err
		}
		for _, node := range declarations(parsed, name) {
			found++
			m.file = path.Join(dir, filepath.Base(file))
			if m.text, err = f.apply(text, fset.Position(node.Pos()).Offset, fset.Position(node.End()).Offset); err != nil {
				return mutant{}, fmt.Errorf("%s: %w", m.file, err)
			}
		}
	}
	if found != 1 {
		return mutant{}, fmt.Errorf("%s is declared %d times in %s, not once", name, found, dir)
	}
	return m, nil
}

// declarations are the functions, methods, variables and constants of a file with the name.
func declarations(file *ast.File, name string) (found []ast.Node) {
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if functionName(d) == name {
				found = append(found, d)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				values, ok := spec.(*ast.ValueSpec)
				if ok && slices.ContainsFunc(values.Names, func(i *ast.Ident) bool { return i.Name == name }) {
					found = append(found, spec)
				}
			}
		}
	}
	return found
}

// functionName is the name as the runtime prints it: F, T.F or (*T).F.
func functionName(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return d.Name.Name
	}
	receiver := types.ExprString(d.Recv.List[0].Type)
	if strings.HasPrefix(receiver, "*") {
		receiver = "(" + receiver + ")"
	}
	return receiver + "." + d.Name.Name
}

// apply builds the fault into the declaration that is the text between two offsets.
func (f fault) apply(text []byte, from, to int) ([]byte, error) {
	pattern, err := regexp.Compile(strings.Join(strings.Fields(f.old), `\s+`))
	if err != nil {
		return nil, err
	}
	matches := pattern.FindAllSubmatchIndex(text[from:to], -1)
	if len(matches) != 1 {
		return nil, fmt.Errorf("%s has %d matches of the pattern, not one: %s", f.in, len(matches), f.old)
	}
	mutated := pattern.Expand(nil, []byte(f.new), text[from:to], matches[0])
	return slices.Concat(text[:from+matches[0][0]], mutated, text[from+matches[0][1]:]), nil
}
