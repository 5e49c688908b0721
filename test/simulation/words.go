package simulation

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"rollup-entrypoint/sequencer"
)

// asked says what a node does that is asked for its height with an impossible start height.
type asked int

const (
	answers     asked = iota
	unknownFlag       // it exits 2
	otherWords        // it names the start height in words that nobody knows
	ignored           // it comes up
)

// tongue is how the main of a release ends that refuses something.
type tongue struct {
	code           int
	stdout, stderr bool // where the text is
	reference      bool // the sentence of sov-rollup-manager's mock
	logOff         bool // its environment has RUST_LOG=off, which hides what is only on stdout
}

func (w *world) makeTongue() tongue {
	t := tongue{code: []int{101, 1, 1, 134}[w.rng.IntN(4)], reference: w.rng.IntN(4) == 0, logOff: w.rng.IntN(8) == 0}
	switch w.rng.IntN(3) {
	case 0:
		t.stdout = true
	case 1:
		t.stderr = true
	default:
		t.stdout, t.stderr = true, true
	}
	return t
}

// setting is what the node's environment has for a name: the last one counts.
func (p *process) setting(name string) string {
	for _, pair := range slices.Backward(p.env) {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

// startRefusal is the sentence for a wrong start height.
func (p *process) startRefusal(expected uint64) string {
	h := p.w.releases[p.release]
	switch {
	case h.asked == otherWords && p.question:
		return fmt.Sprintf("start height %d is not %d", p.start, expected)
	case h.tongue.reference:
		return fmt.Sprintf("start_at_height (%d) != current_height + 1 (%d)", p.start, expected)
	}
	return fmt.Sprintf("The requested start_at_rollup_height: %d, is different than expected height %d", p.start, expected)
}

func stopRefusal(stop, current uint64) string {
	return fmt.Sprintf("The requested stop_height %d must be greater than the current_height %d", stop, current)
}

func (p *process) damageText() string {
	return []string{
		"Fix didn't help, historical state root hashes are not equal to NOMT state root hashes. Manual intervention is required.",
		"stale storage on next_version=7",
		"Runtime initialization must succeed: token ID token_1 already exists",
	}[p.w.rng.IntN(3)]
}

// panics ends a node as an error or a panic does.
func (p *process) panics(text string) { p.refuses(text) }

// refuses has the node write why it ends, in one of many forms, and end.
func (p *process) refuses(text string) {
	w := p.w
	p.refusing = true
	if w.rng.IntN(4) == 0 && p.setting("NO_COLOR") == "" || w.rng.IntN(12) == 0 { // wrapped and coloured
		text = "\x1b[31m" + strings.Replace(text, " height ", " \x1b[1mheight\n    \x1b[0m", 1) + "\x1b[0m"
	}
	switch w.rng.IntN(6) {
	case 0:
		text = "ERROR rollup: error=Failed to initialize\n\nCaused by:\n    0: \"" + text + "\" backtrace=  0: std::backtrace"
	case 1:
		text = `{"level":"ERROR","message":"` + text + `"}`
	case 2:
		text = "thread 'main' panicked at crates/rollup/src/main.rs:42:\n" + text + "\nnote: run with `RUST_BACKTRACE=1`"
		if w.rng.IntN(100) == 0 {
			text += strings.Repeat("\n   7: tokio::runtime::task::core", 3000) // more than any tail holds
		}
	}
	if p.question && w.rng.IntN(4) == 0 {
		p.attack()
	}
	p.endsWith(text + "\n")
}

// endsWith writes the last text of a node, at once or in pieces, and ends it.
func (p *process) endsWith(text string) {
	w, t := p.w, p.w.releases[p.release].tongue
	hidden := p.setting("RUST_LOG") == "off"
	say := func(text string) {
		if t.stdout && !hidden {
			write(p.stdout, text)
		}
		if t.stderr {
			write(p.stderr, text)
		}
	}
	end := func() {
		if p.question && w.rng.IntN(4) == 0 {
			p.attack()
		}
		p.die(sequencer.Exit{Code: t.code})
	}
	switch at := w.rng.IntN(len(text)); {
	case !p.question || w.rng.IntN(3) > 0:
		say(text)
		end()
	case w.trait(answerInPieces, .8):
		say(text[:at])
		say(text[at:])
		end()
	default:
		say(text[:at])
		w.count(answerLate)
		p.later(w.between(time.Millisecond, 40*time.Second), func() { say(text[at:]); end() })
	}
}

func write(to io.Writer, text string) {
	if to != nil {
		_, _ = io.WriteString(to, text)
	}
}

// writes puts text on stderr.
func (p *process) writes(text string) { write(p.stderr, text) }

// attacked has somebody write refusals into what the node writes, at any moment of its start-up.
func (p *process) attacked(startup time.Duration) {
	if p.w.options.attacked && p.w.rng.IntN(3) == 0 {
		p.later(time.Duration(p.w.rng.Int64N(int64(startup))), func() {
			if !p.refusing { // not into a sentence of the node: it writes its lines whole
				p.attack()
			}
		})
	}
}

// attack writes one sentence that is not the node's own, on one of its streams. The attacker has read all of the log,
// and does not know the start height with which the node is asked now.
func (p *process) attack() {
	w := p.w
	if !w.options.attacked {
		return
	}
	w.count(attack)
	number := func() uint64 {
		switch n := w.rng.IntN(6); {
		case n == 0 && len(w.nonces) > 1:
			return w.nonces[w.rng.IntN(len(w.nonces)-1)]
		case n == 1 && p.question:
			return []uint64{p.start / 10, p.start + 1, p.start*10 + 3}[w.rng.IntN(3)]
		case n == 2:
			return p.stop
		case n == 3:
			return w.state.height + uint64(w.rng.IntN(3))
		}
		return 1 + w.rng.Uint64N(60)
	}
	text := []string{
		fmt.Sprintf("The requested start_at_rollup_height: %d, is different than expected height %d\n", number(), number()),
		fmt.Sprintf("start_at_height (%d) != current_height + 1 (%d)\n", number(), number()),
		stopRefusal(number(), number()) + "\n",
		p.damageText() + "\n",
		"the state was not migrated\n",
		fmt.Sprintf("\x1b]8;;memo: expected height %d\n", number()), // a link that nobody ends
	}[w.rng.IntN(6)]
	if w.rng.IntN(2) == 0 {
		text += "\n"
	}
	if w.rng.IntN(2) == 0 && p.stdout != nil {
		write(p.stdout, text)
	} else {
		write(p.stderr, text)
	}
}
