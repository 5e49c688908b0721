// Mutants builds deliberate faults into the program, one at a time, and looks which check notices: the simulation or a
// test. A fault that none of them notices is an invariant that nobody guards.
//
//	go run ./test/mutants [-only NAME] [-lives N]
//
// The work tree is never touched: a fault reaches the go command as an overlay. Before any fault all checks must pass
// without one, for a check that fails anyhow proves nothing. The exit code is 1 if a fault was missed, and also if one
// could not be tried: it does not compile, or it no longer applies, in which case none is tried.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"
)

func main() {
	only := flag.String("only", "", "try the fault of this `NAME` alone")
	lives := flag.Int("lives", 2000, "how many lives the simulation has for each fault")
	flag.Parse()
	if err := run(*only, *lives); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(only string, lives int) error {
	chosen := faults
	if only != "" {
		i := slices.IndexFunc(faults, func(f fault) bool { return f.name == only })
		if i < 0 {
			return fmt.Errorf("there is no fault %q in test/mutants/faults.go", only)
		}
		chosen = faults[i : i+1]
	}
	tree, err := openTree()
	if err != nil {
		return err
	}
	defer tree.close()
	mutants, err := mutantsOf(tree.root, chosen)
	if err != nil {
		return err
	}
	checks := allChecks(lives)
	fmt.Println("without a fault:")
	if err := baseline(tree, checks, mutants); err != nil {
		return err
	}
	began := time.Now()
	fmt.Printf("%d faults:\n", len(mutants))
	results := tryAll(tree, checks, mutants)
	return summary(results, time.Since(began))
}

// baseline runs each check that a fault will meet on the program as it is.
func baseline(tree *tree, checks []check, mutants []mutant) error {
	for _, c := range checks {
		if !slices.ContainsFunc(mutants, func(m mutant) bool { return c.covers(m.file) }) {
			continue
		}
		o := c.run(tree, "")
		if o.err != nil {
			return fmt.Errorf("%s cannot be run: %w", c.name, o.err)
		}
		if o.failed {
			return fmt.Errorf("%s fails without any fault, in %s:\n%s", c.name, o.by, o.output)
		}
		fmt.Printf("  %-44s passed in %.1f s\n", c.name, o.took.Seconds())
	}
	return nil
}

// result is what became of one fault.
type result struct {
	fault fault
	// check is the one that caught it, nil where it was missed.
	check *check
	by    string
	took  time.Duration
	err   error
}

// tryAll tries as many faults at a time as there are processors, and prints each when it is done.
func tryAll(tree *tree, checks []check, mutants []mutant) []result {
	results := make([]result, len(mutants))
	next := make(chan int)
	var workers sync.WaitGroup
	var printing sync.Mutex
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range next {
				results[i] = try(tree, checks, mutants[i])
				printing.Lock()
				fmt.Println(results[i])
				printing.Unlock()
			}
		})
	}
	for i := range mutants {
		next <- i
	}
	close(next)
	workers.Wait()
	return results
}

// try runs the checks on a program with the fault, until one fails.
func try(tree *tree, checks []check, m mutant) result {
	r := result{fault: m.fault}
	began := time.Now()
	defer func() { r.took = time.Since(began) }()
	overlay, err := tree.overlay(m)
	if err == nil {
		err = tree.compiles(overlay, m)
	}
	if err != nil {
		r.err = err
		return r
	}
	for _, c := range inOrder(checks, m) {
		o := c.run(tree, overlay)
		if o.failed || o.err != nil {
			r.check, r.by, r.err = &c, o.by, o.err
			break
		}
	}
	r.took = time.Since(began)
	return r
}

// String is the line of a fault.
func (r result) String() string {
	text := "MISSED: " + r.fault.harm
	switch {
	case r.err != nil:
		text = "NOT TRIED: " + r.err.Error()
	case r.check != nil:
		text = fmt.Sprintf("caught by %s: %s", r.check.name, r.by)
	}
	return fmt.Sprintf("  %-44s %5.1f s  invariant %d  %s", r.fault.name, r.took.Seconds(), r.fault.breaks, text)
}

// summary counts, and is an error unless every fault was caught.
func summary(results []result, took time.Duration) error {
	var bySimulation, byTests, missed, notTried int
	for _, r := range results {
		switch {
		case r.err != nil:
			notTried++
		case r.check == nil:
			missed++
		case r.check.name == simulation:
			bySimulation++
		default:
			byTests++
		}
	}
	fmt.Printf("%d caught by the simulation, %d by tests, %d missed, %d not tried, in %.0f s\n", bySimulation, byTests, missed, notTried, took.Seconds())
	if missed+notTried > 0 {
		return fmt.Errorf("%d of %d faults were not caught", missed+notTried, len(results))
	}
	return nil
}
