package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"syscall"
	"time"
)

// tags are those of the Makefile.
const tags = "nethttpomithttp2"

// simulation is the name of the check that the others are measured by.
const simulation = "the simulation"

// timeLimit ends a check that hangs, testLimit one of a single test; hangLimit later those that do not let themselves be
// ended so.
const (
	timeLimit = 2 * time.Minute
	testLimit = 30 * time.Second
	hangLimit = 30 * time.Second
)

// check is a run of tests.
type check struct {
	name string
	// of are the directories whose mutants it is tried on, not those of the files in except.
	of, except []string
	packages   []string
	// args stand behind the packages.
	args []string
	// limit is what it may take, 0 for timeLimit.
	limit time.Duration
}

// allChecks are the checks in the order in which they are tried.
func allChecks(lives int) []check {
	return []check{
		{
			name: simulation, of: []string{"sequencer", "sequencer/checkpoint", "sequencer/sovereign"},
			// It has a disk and a network of its own.
			except: []string{
				"sequencer/findings.go", "sequencer/sovereign/client.go",
				"sequencer/checkpoint/store.go", "sequencer/checkpoint/replace.go", "sequencer/checkpoint/read.go", "sequencer/checkpoint/lock.go",
				"sequencer/checkpoint/lastrun.go",
			},
			packages: []string{"./test/simulation"}, args: []string{"-run", "^TestSimulation$", "-lives", fmt.Sprint(lives)},
		},
		{name: "the tests of the sequence", of: []string{"sequencer", "sequencer/sovereign"}, packages: []string{"./sequencer", "./sequencer/sovereign"}},
		{name: "the tests of the record", of: []string{"sequencer/checkpoint", "internal/durable"}, packages: []string{"./sequencer/checkpoint", "./internal/durable"}},
		{
			name: "the tests of the plan", of: []string{"sequencer/plan", "internal/strictjson", "internal/regularfile"},
			packages: []string{"./sequencer/plan", "./internal/strictjson", "./internal/regularfile"},
		},
		{name: "the tests of the images", of: []string{"images"}, packages: []string{"./images"}},
		{name: "the tests of the preflight", of: []string{"internal/preflight"}, packages: []string{"./internal/preflight"}},
		{name: "the tests of the log", of: []string{"internal/logwriter"}, packages: []string{"./internal/logwriter"}},
		{name: "the tests of the limits", of: []string{"internal/limits"}, packages: []string{"./internal/limits"}},
		{
			name: "the tests of the status", of: []string{"internal/status"}, packages: []string{"./internal/status"},
			args: []string{"-skip", "^TestPageShowsTheStatusInARealBrowser$"}, // no fault is in the page
		},
		{name: "the tests of the notifier", of: []string{"internal/systemd"}, packages: []string{"./internal/systemd"}},
		{name: "the tests of the init", of: []string{"reaper", "internal/procfs"}, packages: []string{"./reaper", "./internal/procfs"}},
		{
			name: "the tests of the whole program", of: []string{"cmd/entrypoint"}, packages: []string{"./cmd/entrypoint", "./test/program"},
			// They kill, cut the power and wear the program down for a long time; one of them by dice.
			args: []string{"-skip", "^Test(KilledAt|Power|Soak)"},
		},
	}
}

// covers reports whether the check is tried on mutants of a file.
func (c check) covers(file string) bool {
	return slices.Contains(c.of, path.Dir(file)) && !slices.Contains(c.except, file)
}

// only is the check with one test alone.
func (c check) only(test string) check {
	c.args, c.limit = []string{"-run", "^" + test + "$"}, testLimit
	return c
}

// inOrder are the checks for a mutant, in the order in which they are tried: first what is known to notice it.
func inOrder(checks []check, m mutant) []check {
	var first, then []check
	for _, c := range checks {
		if !c.covers(m.file) {
			continue
		}
		if c.name != simulation && m.by != simulation {
			first = append(first, c.only(m.by))
		}
		then = append(then, c)
	}
	return append(first, then...)
}

// outcome is how a check ended.
type outcome struct {
	failed bool
	// by is what failed first.
	by     string
	output string
	took   time.Duration
	// err says that nothing was checked.
	err error
}

// run runs the check. Vet is left out: it judges the text and not what it does.
func (c check) run(t *tree, overlay string) outcome {
	limit := cmp.Or(c.limit, timeLimit)
	args := slices.Concat([]string{"test", "-tags", tags, "-vet=off", "-count=1", "-failfast", "-timeout", limit.String()}, c.packages, c.args)
	cmd := t.command(overlay, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 10 * time.Second // a process that a test left behind may hold our pipe
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return outcome{err: err}
	}
	kill := time.AfterFunc(limit+hangLimit, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	hung := !kill.Stop()
	o := judge(out.String(), err, hung)
	o.took = time.Since(began)
	return o
}

// notBuilt is what the go command, and a test that builds the program, say instead of running anything.
var notBuilt = regexp.MustCompile(`(?m)^FAIL\t\S+ \[(build|setup) failed\]$|^cannot build rollup-entrypoint/`)

// judge distinguishes a test that failed from a check that did not take place: err is how go test ended, hung that we ended it.
func judge(output string, err error, hung bool) outcome {
	o := outcome{output: output}
	var exit *exec.ExitError
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return o
	case !errors.As(err, &exit):
		o.err = err
	case notBuilt.MatchString(output):
		o.err = errors.New("a test does not compile with it:\n" + output)
	case hung:
		o.failed, o.by = true, "a hang"
	default:
		if o.by = firstFailure(output); o.by == "" {
			o.err = errors.New("go test fails, but no test does:\n" + output)
		}
		o.failed = o.by != ""
	}
	return o
}

var (
	brokenLife = regexp.MustCompile(`(?m)seed \d+: invariant \d+: .*$`)
	timedOut   = regexp.MustCompile(`panic: test timed out.*\n\s*running tests:\n\s*(\S+)`)
	failedTest = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)
	// died is a test binary that ended without a verdict.
	died = regexp.MustCompile(`(?m)^(panic|fatal error|signal|SIG[A-Z]+): .*$`)
)

// firstFailure says what failed first in the output of go test; empty where no test did.
func firstFailure(output string) string {
	if life := brokenLife.FindString(output); life != "" {
		return life
	}
	if hung := timedOut.FindStringSubmatch(output); hung != nil {
		return "a hang of " + hung[1]
	}
	if test := failedTest.FindStringSubmatch(output); test != nil {
		return test[1]
	}
	return died.FindString(output)
}
