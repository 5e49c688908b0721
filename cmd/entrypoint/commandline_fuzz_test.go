package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/reaper"
)

// words splits fuzzed text into arguments, or into variables: one a line.
func words(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// setEnvironment sets the variables of text, and clears all others that are ours. It gives the names that were set.
func setEnvironment(t *testing.T, text string) map[string]string {
	t.Helper()
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(strings.ToUpper(name), envPrefix) {
			os.Unsetenv(name)
		}
	}
	set := map[string]string{}
	for _, pair := range words(text) {
		name, value, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(strings.ToUpper(name), envPrefix) && os.Setenv(name, value) == nil {
			set[name] = value
		}
	}
	return set
}

// commandLine is what a few plain loops read of arguments in the GNU manner, for flags that each have one kind.
type commandLine struct {
	given map[string]string // the last value of each flag
	rest  []string          // what is no flag and comes before --
	after []string          // what comes after --
	bad   bool
}

// readCommandLine knows the flags as kinds: "value", "switch" or "count". interspersed: flags may follow other words.
func readCommandLine(args []string, kinds map[string]string, letters map[byte]string, interspersed bool) commandLine {
	line := commandLine{given: map[string]string{}}
	for len(args) > 0 && !line.bad {
		word := args[0]
		args = args[1:]
		switch {
		case word == "--":
			line.after = args
			return line
		case strings.HasPrefix(word, "--"):
			args = line.long(word[2:], args, kinds)
		case strings.HasPrefix(word, "-") && word != "-":
			args = line.short(word[1:], args, kinds, letters)
		case interspersed:
			line.rest = append(line.rest, word)
		default:
			line.after = append([]string{word}, args...)
			return line
		}
	}
	return line
}

func (l *commandLine) long(text string, args []string, kinds map[string]string) []string {
	name, value, glued := strings.Cut(text, "=")
	kind, known := kinds[name]
	switch {
	case !known:
		l.bad = true
	case glued:
		l.given[name] = value
	case kind != "value":
		l.given[name] = map[string]string{"switch": "true", "count": "+1"}[kind]
	case len(args) == 0:
		l.bad = true
	default:
		l.given[name] = args[0]
		return args[1:]
	}
	return args
}

func (l *commandLine) short(text string, args []string, kinds map[string]string, letters map[byte]string) []string {
	for text != "" {
		name, known := letters[text[0]]
		text = text[1:]
		value, glued := strings.CutPrefix(text, "=")
		switch {
		case !known:
			l.bad = true
			return args
		case glued && value != "": // a lone = is followed by more letters
			l.given[name] = value
			return args
		case kinds[name] != "value":
			l.given[name] = map[string]string{"switch": "true", "count": "+1"}[kinds[name]]
		case text != "":
			l.given[name] = text
			return args
		case len(args) == 0:
			l.bad = true
			return args
		default:
			l.given[name] = args[0]
			return args[1:]
		}
	}
	return args
}

// kindsOf gives the kinds and letters of flags by what their help says of them.
func kindsOf(flags *flagSet) (kinds map[string]string, letters map[byte]string) {
	kinds, letters = map[string]string{"help": "switch"}, map[byte]string{'h': "help"}
	flags.VisitAll(func(f *pflag.Flag) {
		kinds[f.Name] = "value"
		switch {
		case f.Value.Type() == "count":
			kinds[f.Name] = "count"
		case f.NoOptDefVal == "true":
			kinds[f.Name] = "switch"
		}
		if f.Shorthand != "" {
			letters[f.Shorthand[0]] = f.Name
		}
	})
	return kinds, letters
}

// accepted parses as the command does, and wants that whatever is refused is refused in words, with 64.
func accepted(t *testing.T, flags *flagSet, args []string) bool {
	t.Helper()
	err := flags.parse(args)
	if err == nil || errors.Is(err, pflag.ErrHelp) {
		return err == nil
	}
	var stderr bytes.Buffer
	code := usageError(program{stderr: &stderr}, flags.Name(), err)
	words, isOurs := strings.CutPrefix(stderr.String(), "entrypoint: ")
	if code != 64 || !isOurs || strings.HasPrefix(words, "\n") || !strings.Contains(words, "\nTry: entrypoint "+flags.Name()+" --help\n") {
		t.Fatalf("%q ended with %d and %q", args, code, stderr.String())
	}
	return false
}

// What run reads of arguments and environment is what plain loops read of them: the flag wins, the node gets its
// arguments untouched, nothing is refused without words, and a variable that is nearly a setting is reported.
func FuzzRunCommandLine(f *testing.F) {
	for _, seed := range [][2]string{
		{"-c\nmanager.json\n-f\n/data/checkpoint.json\n--\n--genesis-path\n/etc/genesis.json", ""},
		{"--config=m.json\n--no-checkpoint-file\n--height-slack\n10\n--stop-timeout=25s", "ENTRYPOINT_CONFIG=other.json"},
		{"", "ENTRYPOINT_CONFIG=m.json\nENTRYPOINT_CHECKPOINT_FILE=c.json\nENTRYPOINT_HEIGHT_SLACK=0x10\nENTRYPOINT_STOP_TIMEOUT=1m"},
		{"--no-checkpoint-file", "ENTRYPOINT_CONFIG=m.json\nENTRYPOINT_CHECKPOINT_FILE=c.json"},
		{"-fc.json\n-c=m.json", "ENTRYPOINT_NO_CHECKPOINT_FILE=true"},
		{"-c\nm.json", "ENTRYPOINT_NO_CHECKPOINT_FILE=1\nENTRYPOINT_CHECKPOINT_FILE=c.json"},
		{"-c\n--\n-f\n--\n--\n--\n", ""},
		{"-c\nm.json\n-f\nc.json\nnode\n--\n-x", ""},
		{"-c\nm.json\n--no-checkpoint-file=maybe", "ENTRYPOINT_STOP_TIMEOUT=5"},
		{"-c\nm.json\n-f\nc.json\n--stop-timeout\n-1s\n--when-finished\nsleep", "ENTRYPOINT_HEIGHT_SLACK=-1"},
		{"--confg\nm.json", "ENTRYPOINT_CONFG=m.json\nentrypoint_config=m.json\nENTRYPOINT_PORT=tcp://10.0.0.1:80"},
		{"-h", ""},
		{"-c\nm.json\n-f\nc.json\n--stall-timeout=5m\n--preflight-before\n-1h", "ENTRYPOINT_LISTEN=0.0.0.0:9848"},
		{"-c\nm.json\n-f\nc.json\n--listen\n", "ENTRYPOINT_LISTEN=x"},
		{"-c\nm.json\n-f\nc.json\n--listen\n[::1]:80\n--stall-timeout\n5m", "ENTRYPOINT_PREFLIGHT_BEFORE=10m"},
		{"-c", "ENTRYPOINT_STOPTIMEOUT=5s"},
		{"-c\nm.json\n-f\nc.json\n--undo\ncopy", "ENTRYPOINT_UNDO=of\nENTRYPOINT_UNDO_DIR=/data/undo"},
		{"-c\nm.json\n-f\nc.json\n--restarts\n0x2", "ENTRYPOINT_RESTARTS=-1"},
		{"-c\nm.json\n-f\nc.json", "ENTRYPOINT_RESTARTS=18446744073709551616"},
		{"-c\nm.json\n-f\nc.json\n--when-finished=wait\n-\n--=\n---", "ENTRYPOINT_WHEN_FINISHED=exit"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, arguments, environment string) {
		args, env := words(arguments), setEnvironment(t, environment)
		var got runFlags
		flags := newFlags("run", runUsage)
		got.register(flags)
		kinds, letters := kindsOf(flags)
		line := readCommandLine(args, kinds, letters, true)
		checkStray(t, flags, env)
		if !accepted(t, flags, args) {
			return
		}
		if line.bad || len(line.rest) > 0 || !slices.Equal(flags.Args(), line.after) {
			t.Fatalf("%q was accepted, with %q for the node; read with loops: %+v", args, flags.Args(), line)
		}
		want, err := runFlagsOf(line, env)
		if err != nil || got != want || flags.given("height-slack") != has(line, env, "height-slack") {
			t.Fatalf("%q with %q is %+v, want %+v, %v", args, env, got, want, err)
		}
	})
}

// has reports whether a flag is given by an argument or by the environment.
func has(line commandLine, env map[string]string, flag string) bool {
	_, asFlag := line.given[flag]
	_, asVariable := env[envName(flag)]
	return asFlag || asVariable
}

// runFlagsOf gives the settings of run: the flag, else the variable, else the default.
func runFlagsOf(line commandLine, env map[string]string) (f runFlags, err error) {
	value := func(flag, otherwise string) string {
		if v, ok := line.given[flag]; ok {
			return v
		}
		if v, ok := env[envName(flag)]; ok {
			return v
		}
		return otherwise
	}
	var errs [8]error
	f.config, f.checkpoint, f.whenFinished = value("config", ""), value("checkpoint-file", ""), value("when-finished", "exit")
	f.logLevel, f.logFormat = value("log-level", "info"), value("log-format", "auto")
	f.manifest = value("manifest", "/opt/rollup/manifest.json")
	f.termination = value("termination-log", "/dev/termination-log")
	f.noCheckpoint, errs[0] = strconv.ParseBool(value("no-checkpoint-file", "false"))
	f.slack, errs[1] = strconv.ParseUint(value("height-slack", "0"), 10, 64)
	f.stopTimeout, errs[2] = time.ParseDuration(value("stop-timeout", "0s"))
	f.leftoverTimeout, errs[6] = time.ParseDuration(value("leftover-timeout", "5m"))
	f.nofile, errs[7] = strconv.ParseUint(value("nofile", "65536"), 0, 64)
	f.stallTimeout, errs[3] = time.ParseDuration(value("stall-timeout", "0s"))
	f.preflightBefore, errs[4] = time.ParseDuration(value("preflight-before", "1h"))
	restarts, err := strconv.ParseUint(value("restarts", "5"), 0, strconv.IntSize)
	f.restarts, errs[5] = uint(restarts), err
	f.listen = value("listen", "127.0.0.1:9848")
	f.undo = undoFlags{mode: value("undo", "auto"), dir: value("undo-dir", "")}
	// Of two that exclude each other the flag wins over the variable.
	if f.noCheckpoint && f.checkpoint != "" {
		_, fileAsFlag := line.given["checkpoint-file"]
		_, noneAsFlag := line.given["no-checkpoint-file"]
		switch {
		case noneAsFlag && !fileAsFlag:
			f.checkpoint = ""
		case fileAsFlag && !noneAsFlag:
			f.noCheckpoint = false
		default:
			err = fmt.Errorf("both are given in the same place")
		}
	}
	for _, e := range errs {
		if e != nil {
			err = e
		}
	}
	if f.config == "" || (f.checkpoint == "") != f.noCheckpoint ||
		!among(f.whenFinished, "exit|wait") || !among(f.logLevel, "debug|info|warn|error") || !among(f.logFormat, "auto|text|json") || !among(f.undo.mode, "auto|copy|off") ||
		min(f.stopTimeout, f.leftoverTimeout, f.stallTimeout, f.preflightBefore) < 0 || !listenable(f.listen) ||
		f.checkpoint != "" && f.termination != "" && filepath.Clean(f.checkpoint) == filepath.Clean(f.termination) {
		err = fmt.Errorf("%+v cannot be run", f)
	}
	return f, err
}

// among reports whether a value is one of those that are listed.
func among(value, listed string) bool { return slices.Contains(strings.Split(listed, "|"), value) }

// listenable reports whether an address is none, or has a port behind its last colon and no other colon outside
// brackets.
func listenable(address string) bool {
	if address == "" {
		return true
	}
	at := strings.LastIndexByte(address, ':')
	if at < 0 || at == len(address)-1 {
		return false
	}
	host, port := address[:at], address[at+1:]
	if inner, bracketed := strings.CutPrefix(host, "["); bracketed {
		inner, closed := strings.CutSuffix(inner, "]")
		return closed && !strings.ContainsAny(inner+port, "[]")
	}
	return !strings.ContainsAny(host+port, "[]:")
}

// checkStray wants that no variable which is nearly a setting stays unreported, and that none which is one is reported.
func checkStray(t *testing.T, flags *flagSet, env map[string]string) {
	t.Helper()
	var known []string
	flags.VisitAll(func(f *pflag.Flag) { known = append(known, envName(f.Name)) })
	reported := strayEnvironment(flags)
	for name := range env {
		isReported := slices.ContainsFunc(reported, func(s string) bool { return strings.HasPrefix(s, name+" is not a setting") })
		switch near := slices.ContainsFunc(known, func(k string) bool { return nearly(name, k) }); {
		case slices.Contains(known, name) && isReported:
			t.Fatalf("%s is a setting, but %q", name, reported)
		case near && !slices.Contains(known, name) && !fromCluster(name) && !isReported:
			t.Fatalf("%s is nearly a setting, and only %q are reported", name, reported)
		}
	}
}

// nearly reports whether a letter more, a letter less, or the case of letters is all the difference.
func nearly(name, known string) bool {
	name = strings.ToUpper(name)
	if len(name) > len(known) {
		name, known = known, name
	}
	for i := range known {
		if known[:i]+known[i+1:] == name {
			return true
		}
	}
	return name == known
}

// What exec reads is what plain loops read, and the command gets its arguments untouched.
func FuzzExecCommandLine(f *testing.F) {
	for _, seed := range [][2]string{
		{"--\nsleep\ninfinity", ""},
		{"-g\n-vv\n-e\n143\n-p\nTERM\n--\nnode\n-c\nx\n--", ""},
		{"sh\n-c\nexit 3", "ENTRYPOINT_REMAP_EXIT=3,130\nENTRYPOINT_GROUP=true"},
		{"--signal-map=15:3,HUP:0\n--signal-map\nUSR1:SIGUSR2\nnode", "ENTRYPOINT_SIGNAL_MAP=1:2"},
		{"-e\n256\n-e-1\nnode", "ENTRYPOINT_VERBOSE=2"},
		{"-sgv\n-p=9\n-\n--", "ENTRYPOINT_PARENT_DEATH_SIGNAL=KILL"},
		{"--signal-map\n15\nnode", "ENTRYPOINT_SIGNALMAP=15:3"},
		{"--signal-map\nKILL:15\n--\n", ""},
		{"-g", "ENTRYPOINT_GROUP=perhaps"},
		{"--group=false\n--verbose=3\n-x", ""},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, arguments, environment string) {
		args, env := words(arguments), setEnvironment(t, environment)
		var got execFlags
		flags := newFlags("exec", execUsage)
		got.register(flags)
		kinds, letters := kindsOf(flags)
		line := readCommandLine(args, kinds, letters, false)
		checkStray(t, flags, env)
		if !accepted(t, flags, args) {
			return
		}
		if line.bad || !slices.Equal(flags.Args(), line.after) {
			t.Fatalf("%q was accepted, with the command %q; read with loops: %+v", args, flags.Args(), line)
		}
		group, given := line.given["group"]
		if !given {
			group = env[envName("group")]
		}
		if want, _ := strconv.ParseBool(group); got.options.Group != want {
			t.Fatalf("%q with %q: group is %t", args, env, got.options.Group)
		}
		for _, code := range got.remapExit {
			if code < 0 || code > 255 {
				t.Fatalf("exit code %d is to become 0", code)
			}
		}
		checkSignalMap(t, got.options.SignalMap)
	})
}

// checkSignalMap wants signals that exist, and are handed out.
func checkSignalMap(t *testing.T, signals map[syscall.Signal]syscall.Signal) {
	t.Helper()
	for from, to := range signals {
		if can, _ := reaper.Forwardable(from); !can || to < 0 || to > 64 {
			t.Fatalf("signal %d is forwarded as %d", from, to)
		}
	}
}

// signalNames are those of signal(7), without its synonyms.
func signalNames() map[string]syscall.Signal {
	names := map[string]syscall.Signal{}
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		if name := unix.SignalName(sig); name != "" {
			names[name] = sig
		}
	}
	return names
}

// A mapping is one of two signals by number or name, and every other text is refused.
func FuzzSignalMap(f *testing.F) {
	for _, seed := range []string{
		"15:3", "TERM:QUIT", "SIGTERM:SIGQUIT", "term:0", "15", "", ":", "15:", ":3", "KILL:15", "17:15", "URG:15", "32:1", "64:64", "65:1", "0:1",
		"-15:3", "+15:3", "015:03", "TERM:KILL", "SIGSIGTERM:1", "15:3:1", " 15:3", "IOT:ABRT", "SIG:1", "RTMIN:1", "HUP:99999999999999999999", "TERM:CHLD",
	} {
		f.Add(seed)
	}
	names := signalNames()
	read := func(text string) (syscall.Signal, bool) {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return syscall.Signal(n), n >= 1 && n <= 64
		}
		name := strings.ToUpper(text)
		if sig, ok := names[name]; ok {
			return sig, true
		}
		sig, ok := names["SIG"+name]
		return sig, ok
	}
	f.Fuzz(func(t *testing.T, text string) {
		from, to, err := parseMapping(text)
		parts := strings.SplitN(text, ":", 2)
		wantFrom, ok := read(parts[0])
		wantTo := syscall.Signal(0)
		if can, _ := reaper.Forwardable(wantFrom); !can || len(parts) < 2 {
			ok = false
		}
		if ok && parts[1] != "0" {
			wantTo, ok = read(parts[1])
		}
		switch {
		case ok != (err == nil):
			t.Fatalf("%q is %d:%d, %v, want %d:%d, %t", text, from, to, err, wantFrom, wantTo, ok)
		case ok && (from != wantFrom || to != wantTo):
			t.Fatalf("%q is %d:%d, want %d:%d", text, from, to, wantFrom, wantTo)
		case err != nil && err.Error() == "":
			t.Fatalf("%q is refused without words", text)
		}
	})
}
