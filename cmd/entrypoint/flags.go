package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"rollup-entrypoint/sequencer"
)

// envPrefix comes before a flag's name in the environment.
const envPrefix = "ENTRYPOINT_"

// flagSet is the flags of a command, with the environment as their second source.
type flagSet struct {
	*pflag.FlagSet
	// fromEnv are the flags whose value came from the environment.
	fromEnv map[string]bool
	// acts are flags that ask for something to be done once, and so are not taken from the environment.
	acts []string
	// onUsageError, if set, gets a usage error that is also printed on stderr.
	onUsageError func(error)
}

// newFlags returns an empty set of flags for the command name.
func newFlags(name string) *flagSet {
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	flags.SortFlags = false
	flags.SetOutput(io.Discard) // errors are printed once, by usageError
	return &flagSet{FlagSet: flags, fromEnv: map[string]bool{}}
}

// parse reads the arguments, and then the environment for each flag that was not among them.
func (fs *flagSet) parse(args []string) error {
	if err := fs.Parse(args); err != nil {
		return fs.explain(err)
	}
	var problems []error
	fs.VisitAll(func(f *pflag.Flag) {
		name := envName(f.Name)
		text, set := os.LookupEnv(name)
		if f.Changed || !set || slices.Contains(fs.acts, f.Name) {
			return
		}
		if err := fs.Set(f.Name, text); err != nil {
			problems = append(problems, fmt.Errorf("environment variable %s=%q: %w", name, text, err))
			return
		}
		fs.fromEnv[f.Name] = true
	})
	return errors.Join(problems...)
}

// explain says what an unknown flag may have been meant for.
func (fs *flagSet) explain(err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	suggestion, hint := "", ""
	if unknown.GetSpecifiedShortnames() == "" {
		var known []string
		fs.VisitAll(func(f *pflag.Flag) { known = append(known, "--"+f.Name) })
		suggestion = sequencer.Suggest("--"+unknown.GetSpecifiedName(), known)
	}
	if fs.Name() == "run" {
		hint = ": arguments for the node go after --"
	}
	return fmt.Errorf("%w%s%s", err, suggestion, hint)
}

// fromCluster reports whether a variable is one that Kubernetes makes for a service, here for one whose name begins with
// entrypoint: …_SERVICE_HOST, …_SERVICE_PORT, …_PORT, …_PORT_80_TCP_ADDR.
func fromCluster(name string) bool {
	return strings.HasSuffix(name, "_SERVICE_HOST") || strings.HasSuffix(name, "_PORT") || strings.Contains(name, "_PORT_")
}

// strayEnvironment gives a sentence for each environment variable that looks like that of a flag, and is not.
func strayEnvironment(fs *flagSet) []string {
	var known, stray []string
	fs.VisitAll(func(f *pflag.Flag) { known = append(known, strings.TrimPrefix(envName(f.Name), envPrefix)) })
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		rest, ours := strings.CutPrefix(strings.ToUpper(name), envPrefix)
		if !ours || name == envPrefix+rest && slices.Contains(known, rest) || fromCluster(name) {
			continue
		}
		if suggestion := sequencer.Suggest(rest, known); suggestion != "" {
			stray = append(stray, name+" is not a setting"+strings.Replace(suggestion, `"`, `"`+envPrefix, 1))
		}
	}
	slices.Sort(stray)
	return stray
}

// given reports whether the flag was set, and not to its default by leaving it out.
func (fs *flagSet) given(name string) bool { return fs.Lookup(name).Changed }

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// parseOrHelp parses for a command. done is true where the command has nothing more to do; code is then its exit code.
func parseOrHelp(p program, flags *flagSet, usage string, args []string) (code int, done bool) {
	err := flags.parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprintf(p.stdout, "Usage:\n  %s\n\nFlags:\n%s", usage, flags.FlagUsages())
		if len(flags.acts) > 0 {
			fmt.Fprintf(p.stdout, "\nNot taken from the environment: --%s\n", strings.Join(flags.acts, ", --"))
		}
		if flags.Name() == "run" {
			fmt.Fprintf(p.stdout, "\n%s", exitCodes)
		}
		return 0, true
	case err != nil:
		return flags.usageError(p, err), true
	}
	return 0, false
}

// usageError prints what is wrong with the command line, and gives the exit code.
func (fs *flagSet) usageError(p program, err error) int {
	if fs.onUsageError != nil {
		fs.onUsageError(err)
	}
	return usageError(p, fs.Name(), err)
}
