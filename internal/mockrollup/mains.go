package mockrollup

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// The programs around a node.
const (
	mainStarter = "starter" // rollup-starter
	mainDemo    = "demo"    // the SDK's demo-rollup, and chains derived from it
	mainManager = "manager" // the mock of sov-rollup-manager
)

// How a node rejects a wrong start height.
const (
	refusalLate      = "late"
	refusalGarbled   = "garbled"
	refusalNone      = "none"
	refusalFlood     = "flood"
	refusalHyperlink = "hyperlink"
	refusalExit2     = "exit2"
	refusalIgnore    = "ignore"
)

var refusals = []string{
	"", refusalLate, refusalGarbled, refusalNone, refusalFlood, refusalHyperlink, refusalExit2, refusalIgnore,
}

// floodSize is how much backtrace comes before a flooded refusal, and again after it, in bytes.
const floodSize = 1 << 20

// mains says how each program fails, and where it writes the text.
var mains = map[string]struct {
	code   int
	report func(n *node, text string)
}{
	// A panic, which the hook of tracing also writes to stdout.
	mainStarter: {exitFailure, func(n *node, text string) {
		n.log.error("Rollup failed", "error", text)
		fmt.Fprint(n.stdio.Err, panicText(text, n.log.colour))
	}},
	// One record on stdout, and nothing on stderr: RUST_LOG=off hides it.
	mainDemo: {exitError, func(n *node, text string) {
		n.log.error("Rollup failed", "error", "Failed to initialize the rollup\n\nCaused by:\n    "+text, "backtrace", backtrace())
	}},
	mainManager: {exitError, func(n *node, text string) { fmt.Fprintf(n.stdio.Err, "Error: %s\n", text) }},
}

// panicked is an error that makes every program panic.
type panicked struct{ error }

func (p panicked) Unwrap() error { return p.error }

// wrongStart is the refusal of a start height.
type wrongStart struct{ requested, expected uint64 }

func (w wrongStart) Error() string {
	return fmt.Sprintf("The requested start_at_rollup_height: %d, is different than expected height %d", w.requested, w.expected)
}

// words gives the refusal in the words of that program, or in the style that the config asks for.
func (w wrongStart) words(program, style string) string {
	switch {
	case style == refusalGarbled:
		return fmt.Sprintf("Asked to begin with block %d, but the next one is %d", w.requested, w.expected)
	case style == refusalHyperlink:
		return fmt.Sprintf("The requested start_at_rollup_height: %s, is different than expected height %s",
			hyperlink(w.requested), hyperlink(w.expected))
	case program == mainManager:
		return fmt.Sprintf("start_at_height (%d) != current_height + 1 (%d)", w.requested, w.expected)
	}
	return w.Error()
}

// hyperlink gives height in quotes, as a terminal link (OSC 8).
func hyperlink(height uint64) string {
	return fmt.Sprintf("\"\x1b]8;;http://explorer.invalid/blocks/%d\x1b\\%[1]d\x1b]8;;\x1b\\\"", height)
}

// fail ends the node with err, as its main would.
func (n *node) fail(err error) int {
	n.explain(err)
	reason := err.Error()
	var refused refusal
	if errors.As(err, &refused) {
		if errors.Is(err, errLocked) {
			reason = errLocked.Error()
		}
		n.journal.add(Entry{Event: EventRefused, Height: n.state.Height, Reason: reason})
	}
	code := mains[n.cfg.Mock.Main].code
	if errors.As(err, new(panicked)) {
		code = exitFailure
	}
	n.journal.exit(code, n.state.Height, n.soft, reason)
	return code
}

// explain writes why the node failed.
func (n *node) explain(err error) {
	if errors.As(err, new(panicked)) {
		n.panics(err.Error())
		return
	}
	text := err.Error()
	var wrong wrongStart
	if errors.As(err, &wrong) {
		text = wrong.words(n.cfg.Mock.Main, n.cfg.Mock.Refusal)
		switch n.cfg.Mock.Refusal {
		case refusalNone:
			return
		case refusalLate:
			time.Sleep(n.cfg.Mock.RefusalDelay)
		case refusalFlood:
			text = frames(floodSize) + text + "\n" + frames(floodSize)
		}
	}
	mains[n.cfg.Mock.Main].report(n, n.quoted(text))
}

// panics writes what a panic leaves on stderr.
func (n *node) panics(text string) {
	fmt.Fprint(n.stdio.Err, panicText(n.quoted(text), n.log.colour))
}

// quoted puts somebody else's text around ours, so that neither the first nor the last sentence need be ours.
func (n *node) quoted(text string) string {
	if n.cfg.Mock.Quote == "" {
		return text
	}
	return n.cfg.Mock.Quote + "\n" + text + "\n" + n.cfg.Mock.Quote
}

// quote writes somebody else's text to both streams.
func (n *node) quote() {
	if n.cfg.Mock.Quote != "" {
		fmt.Fprintln(n.stdio.Out, n.cfg.Mock.Quote)
		fmt.Fprintln(n.stdio.Err, n.cfg.Mock.Quote)
	}
}

// backtrace gives the backtrace of an error in a Rust program.
func backtrace() string {
	switch os.Getenv("RUST_BACKTRACE") {
	case "", "0":
		return "disabled backtrace"
	}
	return frames(1)
}

// frames gives a backtrace of at least that many bytes.
func frames(size int) string {
	var text strings.Builder
	for number := 0; text.Len() < size; number++ {
		fmt.Fprintf(&text, "%4d: sov_rollup::start::{{closure}}\n             at crates/rollup/src/main.rs:%d:10\n", number, 100+number)
	}
	return text.String()
}

func (n *node) crash(end ending) int {
	n.panics(end.reason)
	if end.signal == 0 {
		n.journal.exit(end.code, n.state.Height, n.soft, end.reason)
		return end.code
	}
	n.journal.exit(128+int(end.signal), n.state.Height, n.soft, end.reason)
	if err := dieBy(end.signal); err != nil {
		n.panics(err.Error())
	}
	return exitFailure
}
