package mockrollup

import (
	"io"

	"github.com/spf13/pflag"
)

// nodeArgs is the node's command line. A nil height was not given.
type nodeArgs struct {
	all     []string
	config  string
	genesis string
	start   *uint64
	stop    *uint64
}

const startFlag = "start-at-rollup-height"

func nodeFlags(args *nodeArgs, mock *Mock) *pflag.FlagSet {
	flags := pflag.NewFlagSet("mock-rollup", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.StringVar(&args.config, "rollup-config-path", "", "the rollup's TOML config `FILE`")
	flags.StringVar(&args.genesis, "genesis-path", "", "genesis `FILE` (JSON), parsed at every start")
	if mock.Refusal != refusalExit2 {
		flags.Uint64(startFlag, 0, "fail unless `N` is the next height")
	}
	flags.Uint64("stop-at-rollup-height", 0, "exit 0 once height `N` is committed")
	for _, name := range mock.AcceptFlags {
		if name = name[len("--"):]; flags.Lookup(name) == nil {
			flags.String(name, "", "a flag of this version")
		}
	}
	return flags
}

// parseNodeArgs parses the command line twice, because the config says which flags a version has. With an error, the
// node exits with the code. A bad argument comes before an error in the config: a real node parses its arguments before
// it opens any file.
func parseNodeArgs(argv []string, stdio Stdio) (args nodeArgs, cfg Config, code int, err error) {
	peek := nodeFlags(&args, &Mock{})
	peek.SetOutput(io.Discard)
	peek.ParseErrorsAllowlist.UnknownFlags = true
	var cfgErr error
	if peek.Parse(argv) == nil && args.config != "" {
		cfg, cfgErr = LoadConfig(args.config)
	}
	args = nodeArgs{all: argv}
	flags := nodeFlags(&args, &cfg.Mock)
	if code, ok := parseArgs(flags, argv, stdio); !ok {
		return args, cfg, code, errUsageShown
	}
	if code, ok := required(flags, stdio, "rollup-config-path"); !ok {
		return args, cfg, code, errUsageShown
	}
	args.start, args.stop = givenHeight(flags, startFlag), givenHeight(flags, "stop-at-rollup-height")
	return args, cfg, exitFailure, cfgErr
}

func givenHeight(flags *pflag.FlagSet, name string) *uint64 {
	if !flags.Changed(name) {
		return nil
	}
	height, err := flags.GetUint64(name)
	if err != nil {
		return nil
	}
	return &height
}
