package mockrollup

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/pflag"
)

// DAHandler serves the chain that params fix, at any path.
func DAHandler(params DAParams) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, params.At(time.Now()))
	})
}

// daMain is the mock DA layer as a server, for nodes that share no volume.
func daMain(args []string, stdio Stdio) int {
	flags := pflag.NewFlagSet("mock-rollup da", pflag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:26658", "`ADDRESS` to listen on")
	var cfg DAConfig
	flags.DurationVar(&cfg.BlockTime, "block-time", 250*time.Millisecond, "`TIME` between two blocks")
	flags.Uint64Var(&cfg.Finality, "finality", 2, "`BLOCKS` until one is final")
	flags.Uint64Var(&cfg.EmptyEvery, "empty-every", 0, "every `N`th slot is empty (0: none)")
	flags.StringVar(&cfg.File, "file", "", "keep the chain's parameters in `FILE`, so that it survives a restart")
	if code, ok := parseArgs(flags, args, stdio); !ok {
		return code
	}
	if err := serveDA(*listen, cfg, stdio); err != nil {
		fmt.Fprintf(stdio.Err, "error: %s\n", err)
		return exitMigration
	}
	return exitOK
}

func serveDA(address string, cfg DAConfig, stdio Stdio) error {
	if cfg.BlockTime < time.Millisecond {
		return fmt.Errorf("--block-time %s must be at least 1ms", cfg.BlockTime)
	}
	params, err := cfg.params(time.Now()), error(nil)
	if cfg.File != "" {
		if params, err = OpenDAFile(cfg.File, params); err != nil {
			return err
		}
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	server := &http.Server{Handler: DAHandler(params)}
	stopped := stopSignals(func() {})
	go func() {
		<-stopped
		_ = server.Close()
	}()
	fmt.Fprintf(stdio.Out, "DA server listens on %s: a block every %dms, finality %d\n",
		listener.Addr(), params.BlockMS, params.FinalityBlocks)
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
