package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"rollup-entrypoint/internal/strictjson"
)

// envPrefix comes before a flag's name in the environment.
const envPrefix = "ENTRYPOINT_"

// flagSet is the flags of a command, with the environment as their second source.
type flagSet struct {
	*pflag.FlagSet
	usage string
	// fromEnv are the flags whose value came from the environment.
	fromEnv map[string]bool
	// acts are flags that ask for something to be done once, and so are not read from the environment.
	acts []string
	// check finds what is wrong with what was given. By default the only mistake is an argument.
	check func() error
}

// newFlags returns an empty set of flags for the command name.
func newFlags(name, usage string) *flagSet {
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	flags.SortFlags = false
	flags.SetOutput(io.Discard) // errors are printed once, by usageError
	fs := &flagSet{FlagSet: flags, usage: usage, fromEnv: map[string]bool{}}
	fs.check = func() error { return fs.want(fs.NArg() == 0) }
	return fs
}

// parse reads the arguments, and then the environment for each flag that was not among them, and checks all.
func (fs *flagSet) parse(args []string) error {
	switch err := fs.Parse(args); {
	case errors.Is(err, pflag.ErrHelp) && slices.ContainsFunc(args, asksForHelp):
		return err //nolint:wrapcheck // the caller prints the help
	case err != nil:
		err = fs.explain(err)
		fs.parseRest(args)
		return err
	}
	var problems []error
	fs.VisitAll(func(f *pflag.Flag) {
		name := envName(f.Name)
		text, set := os.LookupEnv(name)
		if f.Changed || !set || slices.Contains(fs.acts, f.Name) {
			return
		}
		if err := fs.Set(f.Name, text); err != nil {
			problems = append(problems, fmt.Errorf("the environment variable %s: %s", name, wanted(f)))
			return
		}
		fs.fromEnv[f.Name] = true
	})
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	return fs.check()
}

// asksForHelp tells a request for help from -hold-file and the like, which begin with the letter of it for pflag. A pod with
// that would end with exit code 0 and no message.
func asksForHelp(arg string) bool { return arg == "-h" || strings.HasPrefix(arg, "--help") }

// parseRest takes what can be taken of arguments of which some are wrong: where the message about that goes may be named
// after them.
func (fs *flagSet) parseRest(args []string) {
	fs.ParseErrorsAllowlist.UnknownFlags = true
	if fs.Lookup("help") == nil {
		fs.BoolP("help", "h", false, "") // pflag ends at a request for help
	}
	// It also ends at a name that begins like this.
	args = slices.DeleteFunc(slices.Clone(args), func(arg string) bool {
		return strings.HasPrefix(arg, "---") || strings.HasPrefix(arg, "--=")
	})
	_ = fs.ParseAll(args, func(f *pflag.Flag, value string) error {
		if err := fs.Set(f.Name, value); err != nil { // where the value was forgotten, it is the next flag
			name, value, _ := strings.Cut(strings.TrimPrefix(value, "--"), "=")
			_ = fs.Set(name, value)
		}
		return nil
	})
}

// value is that of a flag, as far as the arguments could be parsed, or else that of its environment variable.
func (fs *flagSet) value(name string) (value string, given bool) {
	if f := fs.Lookup(name); f != nil && f.Changed {
		return f.Value.String(), true
	}
	return os.LookupEnv(envName(name))
}

// want is the mistake of a command line that lacks something, or has too much.
func (fs *flagSet) want(complete bool) error {
	if complete {
		return nil
	}
	return errors.New("want: " + fs.usage)
}

func (fs *flagSet) printHelp(w io.Writer) {
	fmt.Fprintf(w, "Usage:\n  %s\n", fs.usage)
	if fs.HasFlags() {
		fmt.Fprintf(w, "\nFlags:\n%s", fs.FlagUsages())
	}
	if len(fs.acts) > 0 {
		fmt.Fprintf(w, "\nNot read from the environment: --%s\n", strings.Join(fs.acts, ", --"))
	}
	if fs.Name() == "run" {
		fmt.Fprintf(w, "\n%s", exitCodes)
	}
}

// explain words an error of package pflag, which quotes arguments. A secret may be among them, and what is printed here
// ends up in logs and in the status of a pod, which more people can see. So no usage error contains a value, and a name
// only if it is, or nearly is, one of ours.
func (fs *flagSet) explain(err error) error {
	var value *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	var unknown *pflag.NotExistError
	switch {
	case errors.As(err, &value):
		return fmt.Errorf("--%s: %s", value.GetFlag().Name, wanted(value.GetFlag()))
	case errors.As(err, &missing):
		return fmt.Errorf("--%s needs a value", missing.GetFlag().Name)
	}
	text := "unknown flag"
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" {
		var known []string
		fs.VisitAll(func(f *pflag.Flag) { known = append(known, "--"+f.Name) })
		text += strictjson.Misspelt("--"+unknown.GetSpecifiedName(), known)
	}
	if fs.Name() == "run" {
		text += ": arguments for the node go after --"
	}
	return errors.New(text)
}

// wanted says what the values of a flag look like.
func wanted(f *pflag.Flag) string {
	return "want " + cmp.Or(map[string]string{
		"bool": "true or false", "duration": "a duration such as 90s or 5m",
		"stringSlice": "words separated by commas", "intSlice": "whole numbers separated by commas",
	}[f.Value.Type()], "a whole number within its range")
}

// fromCluster reports whether a variable is one that Kubernetes sets for a service, here for one whose name begins with
// entrypoint: …_SERVICE_HOST, …_SERVICE_PORT, …_PORT, …_PORT_80_TCP_ADDR.
func fromCluster(name string) bool {
	return strings.HasSuffix(name, "_SERVICE_HOST") || strings.HasSuffix(name, "_PORT") || strings.Contains(name, "_PORT_")
}

// strayEnvironment returns a sentence for each environment variable that looks like that of a flag, but is not.
func strayEnvironment(fs *flagSet) []string {
	var known, stray []string
	fs.VisitAll(func(f *pflag.Flag) { known = append(known, strings.TrimPrefix(envName(f.Name), envPrefix)) })
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		rest, ours := strings.CutPrefix(strings.ToUpper(name), envPrefix)
		if !ours || name == envPrefix+rest && slices.Contains(known, rest) || fromCluster(name) {
			continue
		}
		if suggestion := strictjson.Suggest(rest, known); suggestion != "" {
			stray = append(stray, name+" is not a setting"+strings.Replace(suggestion, `"`, `"`+envPrefix, 1))
		}
	}
	slices.Sort(stray)
	return stray
}

// given reports whether the flag was set, by an argument or by the environment.
func (fs *flagSet) given(name string) bool { return fs.Lookup(name).Changed }

// unexpected reports whether there are arguments in front of --.
func (fs *flagSet) unexpected() bool {
	dash := fs.ArgsLenAtDash()
	return dash > 0 || dash < 0 && fs.NArg() > 0
}

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// wordList is a flag whose value is words separated by commas. Each use adds to them. That of pflag would link
// encoding/csv, and nobody needs quotes here.
type wordList []string

// String gives the words as they are given.
func (w *wordList) String() string { return strings.Join(*w, ",") }

// Set adds words.
func (w *wordList) Set(text string) error {
	*w = append(*w, strings.Split(text, ",")...)
	return nil
}

// Type is that of pflag.
func (w *wordList) Type() string { return "stringSlice" }

// blocks is a flag whose value is a height or a number of blocks, in decimal. For pflag 0220 would be the octal 144.
type blocks uint64

// String gives the number as it is given.
func (b *blocks) String() string { return strconv.FormatUint(uint64(*b), 10) }

// Set takes a number.
func (b *blocks) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 64)
	*b = blocks(n)
	return err //nolint:wrapcheck // wanted says what is wrong
}

// Type is that of pflag.
func (b *blocks) Type() string { return "uint64" }
