package mockrollup

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

var levelNames = []string{"off", "error", "warn", "info", "debug", "trace"}

// levelColours are the ANSI colours of the levels, in the order of levelNames.
var levelColours = []string{"", "31", "33", "32", "34", "35"}

const (
	levelError = iota + 1
	levelWarn
	levelInfo
	levelDebug
)

// logger writes lines like those of a Rust node: time, level, module, message, fields.
type logger struct {
	mu     sync.Mutex
	out    io.Writer
	level  int
	colour bool
}

// newLogger reads RUST_LOG and NO_COLOR. An invalid RUST_LOG ends the node, as it does a real one.
func newLogger(out io.Writer) (*logger, error) {
	level, err := parseRustLog(os.Getenv("RUST_LOG"))
	return &logger{out: out, level: level, colour: colourWanted()}, err
}

func colourWanted() bool { return os.Getenv("NO_COLOR") == "" }

// parseRustLog returns the most verbose level in filter, a list of level or module=level.
func parseRustLog(filter string) (int, error) {
	if strings.TrimSpace(filter) == "" {
		return levelInfo, nil
	}
	loudest := 0
	for directive := range strings.SplitSeq(filter, ",") {
		name := directive
		if module, level, found := strings.Cut(directive, "="); found {
			if strings.TrimSpace(module) == "" {
				return 0, fmt.Errorf("invalid RUST_LOG directive %q", directive)
			}
			name = level
		}
		level := slices.Index(levelNames, strings.ToLower(strings.TrimSpace(name)))
		if level < 0 {
			return 0, fmt.Errorf("invalid RUST_LOG directive %q", directive)
		}
		loudest = max(loudest, level)
	}
	return loudest, nil
}

func (l *logger) error(text string, fields ...any) { l.write(levelError, text, fields) }
func (l *logger) warn(text string, fields ...any)  { l.write(levelWarn, text, fields) }
func (l *logger) info(text string, fields ...any)  { l.write(levelInfo, text, fields) }
func (l *logger) debug(text string, fields ...any) { l.write(levelDebug, text, fields) }

func (l *logger) write(level int, text string, fields []any) {
	if level > l.level {
		return
	}
	var line strings.Builder
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")
	name := fmt.Sprintf("%5s", strings.ToUpper(levelNames[level]))
	fmt.Fprintf(&line, "%s %s %s %s", l.paint("2", now), l.paint(levelColours[level], name), l.paint("2", "sov_rollup:"), text)
	for i := 0; i+1 < len(fields); i += 2 {
		fmt.Fprintf(&line, " %s=%v", l.paint("3", fmt.Sprint(fields[i])), fields[i+1])
	}
	line.WriteByte('\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.WriteString(l.out, line.String())
}

func (l *logger) paint(code, text string) string { return paint(l.colour, code, text) }

func paint(colour bool, code, text string) string {
	if !colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// panicText is what a Rust program leaves on stderr. Colour codes are next to the text, so a search for a refusal must
// cope with them.
func panicText(message string, colour bool) string {
	return fmt.Sprintf("\nthread 'main' (%d) panicked at crates/rollup/src/main.rs:127:10:\n%s %s\n"+
		"note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n",
		os.Getpid(), paint(colour, "1;31", "Error:"), paint(colour, "1", message))
}
