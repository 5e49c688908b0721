// Testnet prints a table of the nodes of the local network of compose/compose.yaml: version, phase, role, height, next
// upgrade, and the state root at the highest slot that all of them have finalized.
//
//	go run ./compose/testnet [--json] [--wait 1m] [--version NAME] [--node NAME=STATUS_URL,API_URL]...
//
// A node between two processes reports no root. So testnet keeps asking, for ten seconds or for --wait, until each node
// is ready and has reported its root. With --version, each node must also run that version; changes on the way are
// printed to stderr. Exit codes: 0 all roots are equal, 1 they are not, or not every node is ready in time, 2 for bad
// arguments. Without --node, the ports are those of compose.yaml, and the same variables change them:
// SEQUENCER_STATUS_PORT, SEQUENCER_API_PORT, REPLICA_0_STATUS_PORT and so on.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"rollup-entrypoint/compose/network"
)

const (
	exitUnequal = 1
	exitUsage   = 2
	// askEvery is the pause between two readings.
	askEvery = 250 * time.Millisecond
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, out, errors io.Writer) int {
	flags := pflag.NewFlagSet("testnet", pflag.ContinueOnError)
	flags.SetOutput(errors)
	asJSON := flags.Bool("json", false, "print JSON")
	wait := flags.Duration("wait", 10*time.Second, "`TIME` within which each node must be ready and report its state root")
	version := flags.String("version", "", "`NAME` of the version that each node must run")
	given := flags.StringArray("node", nil, "a node, as `NAME=STATUS_URL,API_URL`, instead of those of compose.yaml")
	if err := flags.Parse(args); err != nil {
		return usage(err, errors)
	}
	nodes, err := parseNodes(*given)
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err != nil {
		return usage(err, errors)
	}
	changes := io.Discard
	if *version != "" {
		changes = errors
	}
	report := settle(ctx, nodes, *wait, *version, changes)
	if err := show(report, *asJSON, out); err != nil {
		fmt.Fprintf(errors, "error: %s\n", err)
		return exitUnequal
	}
	if !report.Equal || !settled(report, *version) {
		return exitUnequal
	}
	return 0
}

func usage(err error, out io.Writer) int {
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	fmt.Fprintf(out, "error: %s\n", err)
	return exitUsage
}

// settle reads the network until it is settled, or until roots differ, which waiting does not fix. It writes each
// change of a node's version, phase or leadership to changes.
func settle(ctx context.Context, nodes []network.Node, wait time.Duration, version string, changes io.Writer) network.Report {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var last network.Report
	for {
		report := network.Read(context.WithoutCancel(ctx), nodes)
		for _, change := range report.Since(last) {
			fmt.Fprintf(changes, "%s  %s\n", time.Now().Format(time.TimeOnly), change)
		}
		last = report.Over(last)
		if report.Complete && !report.Equal || settled(report, version) {
			return report
		}
		select {
		case <-ctx.Done():
			return report
		case <-time.After(askEvery):
		}
	}
}

func settled(report network.Report, version string) bool {
	for _, node := range report.Nodes {
		if !node.Ready || version != "" && node.Version != version {
			return false
		}
	}
	return report.Complete
}

func show(report network.Report, asJSON bool, out io.Writer) error {
	if !asJSON {
		return report.Write(out) //nolint:wrapcheck // it says what could not be written
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(report); err != nil {
		return fmt.Errorf("cannot write the report: %w", err)
	}
	return nil
}

func parseNodes(given []string) ([]network.Node, error) {
	if len(given) == 0 {
		return composeNodes(), nil
	}
	var nodes []network.Node
	for _, text := range given {
		name, addresses, named := strings.Cut(text, "=")
		status, api, both := strings.Cut(addresses, ",")
		if !named || !both || name == "" {
			return nil, fmt.Errorf("--node %q must be NAME=STATUS_URL,API_URL", text)
		}
		nodes = append(nodes, network.Node{Name: name, Status: strings.TrimSuffix(status, "/"), API: strings.TrimSuffix(api, "/")})
	}
	return nodes, nil
}

// composeNodes gives the nodes of compose.yaml, at the ports that it publishes.
func composeNodes() []network.Node {
	var nodes []network.Node
	for i, name := range []string{"sequencer", "replica-0", "replica-1"} {
		variable := strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		nodes = append(nodes, network.Node{
			Name: name, Status: address(variable+"_STATUS_PORT", 9848+i), API: address(variable+"_API_PORT", 12346+i),
		})
	}
	return nodes
}

func address(variable string, port int) string {
	text := os.Getenv(variable)
	if text == "" {
		text = fmt.Sprint(port)
	}
	return "http://127.0.0.1:" + text
}
