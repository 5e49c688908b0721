package mockrollup

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/pflag"
)

// getAnswerLimit is how much getMain prints at most, in bytes.
const getAnswerLimit = 1 << 20

// getMain replaces curl in an image that has none: it prints the answer of a URL, and succeeds if its status is 200.
func getMain(args []string, stdio Stdio) int {
	flags := pflag.NewFlagSet("mock-rollup get", pflag.ContinueOnError)
	url := flags.String("url", "", "the `URL` to ask")
	timeout := flags.Duration("timeout", daQueryTimeout, "`TIME` until an answer must be complete")
	if code, ok := parseArgs(flags, args, stdio); !ok {
		return code
	}
	if code, ok := required(flags, stdio, "url"); !ok {
		return code
	}
	if err := printURL(*url, *timeout, stdio.Out); err != nil {
		fmt.Fprintf(stdio.Err, "error: %s\n", err)
		return exitMigration
	}
	return exitOK
}

func printURL(url string, timeout time.Duration, out io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Close = true
	response, err := (&http.Client{Transport: &http.Transport{Proxy: nil}}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(out, io.LimitReader(response.Body, getAnswerLimit)); err != nil {
		return fmt.Errorf("cannot read the answer of %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, response.Status)
	}
	return nil
}
