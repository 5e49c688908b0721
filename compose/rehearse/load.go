package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// loadEvery is how often the built-in load sends a transaction.
	loadEvery = 200 * time.Millisecond
	// loadMargin is how many blocks before a stop height the load pauses.
	loadMargin = 4
)

// load sends transactions, except when the network is about to upgrade.
type load struct {
	network *network
	// command is run by sh instead of the built-in load.
	command string
	sent    atomic.Int64
	pauses  atomic.Int64
	broken  atomic.Pointer[string]
}

// run sends until ctx ends. It pauses from loadMargin blocks before a stop height until every node has passed it.
func (l *load) run(ctx context.Context) {
	var end context.CancelFunc
	ended := make(chan struct{})
	for ctx.Err() == nil {
		quiet := l.quiet()
		switch {
		case !quiet && end == nil:
			var inner context.Context
			inner, end = context.WithCancel(ctx)
			ended = make(chan struct{})
			go func() {
				defer close(ended)
				l.send(inner)
			}()
		case quiet && end != nil:
			l.pauses.Add(1)
			end()
			<-ended
			end = nil
		}
		if pause(ctx, pollEvery) != nil {
			break
		}
	}
	if end != nil {
		end()
		<-ended
	}
}

// quiet reports whether a node is near a stop height, or has not reported a height yet.
func (l *load) quiet() (quiet bool) {
	for _, n := range l.network.nodes {
		n.with(func() {
			if n.down {
				return
			}
			next := n.status.NextUpgrade
			quiet = quiet || n.status.Height == nil || n.status.Phase != "running" ||
				next != nil && n.status.Height.Blocks+loadMargin >= next.StopHeight
		})
	}
	return quiet
}

func (l *load) send(ctx context.Context) {
	if l.command == "" {
		for number := 0; ctx.Err() == nil; number++ {
			l.post(ctx, fmt.Sprintf("rehearsal %d", number))
			_ = pause(ctx, loadEvery)
		}
		return
	}
	cmd := command(ctx, "sh", "-c", l.command)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), l.environment()...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() == nil {
		why := "exit status 0"
		if err != nil {
			why = err.Error()
		}
		text := fmt.Sprintf("the load %q ended before it got SIGTERM: %s", l.command, why)
		if said := strings.TrimSpace(out.String()); said != "" {
			text += ": " + said
		}
		l.broken.Store(&text)
	}
	if cmd.Process != nil {
		// A leftover process would keep sending through the stop height.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	<-ctx.Done()
}

// environment gives the load the addresses of the nodes: REHEARSAL_APIS has all, and REHEARSAL_API_REPLICA_0 has one.
func (l *load) environment() (variables []string) {
	var all []string
	for _, n := range l.network.nodes {
		address := n.apiURL("")
		all = append(all, address)
		name := strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(n.service))
		variables = append(variables, "REHEARSAL_API_"+name+"="+address)
	}
	return append(variables, "REHEARSAL_APIS="+strings.Join(all, " "))
}

// post sends a transaction to the leader: the others reject it.
func (l *load) post(ctx context.Context, text string) {
	body, err := json.Marshal(map[string][]byte{"body": []byte(text)})
	if err != nil {
		return
	}
	for _, n := range l.network.nodes {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, n.apiURL("/sequencer/txs"), bytes.NewReader(body))
		if err != nil {
			return
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := client.Do(request)
		if err != nil {
			continue
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusOK {
			l.sent.Add(1)
			return
		}
	}
}
