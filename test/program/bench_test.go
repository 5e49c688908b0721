package program

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/test/ports"
)

// upgrades is how many hand-overs one run measures.
const upgrades = 50

// BenchmarkHandoff measures what an upgrade costs between two nodes, the node's part and ours apart:
//
//	the node's exit   its last act, until we have reaped it
//	its question      the same node is started again to give its height, until we have reaped it
//	the next start    the exec of the new node is done, until it has read its config
//	ours              the rest: decide, check files, write stamp and checkpoint, fork and exec, twice
//	all               the old node's last act, until the new one has read its config
//	one write         of the stamp, durable, in the same directory, after the run: part of ours
//
// The clocks are those of the nodes' journals, of our log and of our metrics, all on this machine.
func BenchmarkHandoff(b *testing.B) {
	for range b.N {
		m := measureHandoffs(b)
		b.ReportMetric(float64(quantile(m.ours, 50).Nanoseconds()), "ns/ours-median")
		b.ReportMetric(float64(quantile(m.ours, 90).Nanoseconds()), "ns/ours-p90")
		b.ReportMetric(float64(quantile(m.question, 50).Nanoseconds()), "ns/question-median")
		b.ReportMetric(float64(quantile(m.all, 50).Nanoseconds()), "ns/handoff-median")
		b.Log(m.table())
	}
}

// BenchmarkHealthcheck measures a probe from its start to its exit, beside a program that does nothing at all.
func BenchmarkHealthcheck(b *testing.B) {
	c := newChain(b, version{})
	c.statusAddress = fmt.Sprintf("127.0.0.1:%d", ports.Hold(b))
	c.da.set(5, 5)
	c.start()
	c.await("the status", func() bool { ok, _, err := c.client().Probe(b.Context(), "/healthz"); return err == nil && ok })
	var probes, nothings []time.Duration
	for b.Loop() {
		for range 100 {
			probes = append(probes, took(b, programs.entrypoint, "healthcheck", "--listen", c.statusAddress))
			nothings = append(nothings, took(b, "/bin/true"))
		}
	}
	b.ReportMetric(float64(quantile(probes, 50).Nanoseconds()), "ns/probe-median")
	b.Logf("ms: median, p90, max\nhealthcheck  %s\n/bin/true    %s\nratio of the medians: %.1f",
		quantiles(probes), quantiles(nothings), float64(quantile(probes, 50))/float64(quantile(nothings, 50)))
}

// took is how long a program takes from its start to its exit, which must be 0.
func took(b *testing.B, argv ...string) time.Duration {
	b.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	began := time.Now()
	require.NoError(b, cmd.Run())
	return time.Since(began)
}

// table is short, because the benchmark's log is cut after ten lines.
func (m handoffs) table() string {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\n%d upgrades, ms\tmedian\tp90\tmax\t\n", len(m.ours))
	for _, row := range []struct {
		what string
		took []time.Duration
	}{
		{"the node's exit", m.exit},
		{"its question", m.question},
		{"the next start", m.start},
		{"ours", m.ours},
		{"all", m.all},
		{"one write", m.write},
	} {
		fmt.Fprintf(w, "%s\t%s\t\n", row.what, quantiles(row.took))
	}
	_ = w.Flush() // to memory
	return table.String()
}

func quantiles(took []time.Duration) string {
	if len(took) == 0 {
		return "\t\t"
	}
	return ms(quantile(took, 50)) + "\t" + ms(quantile(took, 90)) + "\t" + ms(quantile(took, 100))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()*1000) }

// quantile is the p-th percentile, the nearest rank.
func quantile(took []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

type handoffs struct{ exit, question, start, ours, all, write []time.Duration }

// measureHandoffs runs a chain through its upgrades.
func measureHandoffs(b *testing.B) handoffs {
	b.Helper()
	const blocks = 16
	var versions []version
	for i := range upgrades + 1 {
		versions = append(versions, version{stop: uint64(blocks * (i + 1))})
	}
	c := newChain(b, versions...)
	c.statusAddress = fmt.Sprintf("127.0.0.1:%d", ports.Hold(b))
	for i := range c.versions {
		c.versions[i].node.Mock.DA = mockrollup.DAConfig{File: filepath.Join(c.dir, "da.json"), BlockTime: 20 * time.Millisecond, Finality: 4}
		c.writeConfig(i)
	}
	var m handoffs
	c.run(
		phase{name: "start", do: start("--when-finished=wait"), events: []event{on("version started")}, trace: c.rest()},
		phase{name: "through", do: func(c *chain) {
			c.awaitFinished()
			m = c.handoffs(c.program.log.all(), c.metrics())
			send(syscall.SIGTERM)(c)
		}, exit: exits(0), trace: c.rest()},
	)
	m.write = c.twinWrites()
	return m
}

// awaitFinished waits until a chain that takes its time is finished.
func (c *chain) awaitFinished() {
	c.t.Helper()
	for end := time.Now().Add(20 * deadline); !c.program.log.has(on("waiting for a stop signal")); time.Sleep(50 * time.Millisecond) {
		if c.program.ended() || time.Now().After(end) {
			c.fatalf("the chain did not come to its end:\n%s", c.program.log.text())
		}
	}
}

// awaitEnd waits for the end of a program that takes its time.
func (c *chain) awaitEnd() {
	c.t.Helper()
	select {
	case <-c.program.done:
	case <-time.After(10 * deadline):
		c.fatalf("the program did not come to its end")
	}
}

// handoffs puts log, metrics and journal together.
func (c *chain) handoffs(log []*logLine, metrics map[string]string) handoffs {
	c.t.Helper()
	started, exited := map[string]time.Time{}, map[string]time.Time{}
	for _, line := range log {
		at, err := time.Parse(time.RFC3339Nano, line.text("time"))
		require.NoError(c.t, err)
		switch line.text("msg") {
		case "version started":
			started[line.text("version")] = at
		case "version exited":
			exited[line.text("version")] = at
		}
	}
	entries, err := c.journal()
	require.NoError(c.t, err)
	var runs []mockrollup.Run
	for _, run := range mockrollup.Runs(entries) {
		if !isQuestion(run.Start.Args) {
			runs = append(runs, run)
		}
	}
	require.Len(c.t, runs, upgrades+1, "each node is started once")
	var m handoffs
	for i := 1; i < len(runs); i++ {
		version := fmt.Sprint(i)
		took, asked := c.seconds(metrics, "entrypoint_handover_duration_seconds", version), c.seconds(metrics, "entrypoint_handover_question_seconds", version)
		before, after := runs[i-1], runs[i]
		m.exit = append(m.exit, exited[fmt.Sprint(i-1)].Sub(before.Exit.Time))
		m.question = append(m.question, asked)
		m.start = append(m.start, after.Start.Time.Sub(started[version]))
		m.ours = append(m.ours, took-asked)
		m.all = append(m.all, after.Start.Time.Sub(before.Exit.Time))
	}
	return m
}

// seconds is the sample of a metric that has a version.
func (c *chain) seconds(metrics map[string]string, name, version string) time.Duration {
	c.t.Helper()
	value, err := strconv.ParseFloat(metrics[fmt.Sprintf("%s{version=%q}", name, version)], 64)
	require.NoError(c.t, err, "%s of version %s", name, version)
	return time.Duration(value * float64(time.Second))
}

// twinWrites measures the durable write of a stamp.
func (c *chain) twinWrites() (took []time.Duration) {
	c.t.Helper()
	found, err := checkpoint.Read("", c.state)
	require.NoError(c.t, err)
	store, err := checkpoint.Open("", filepath.Join(filepath.Dir(c.checkpoint), "twin"))
	require.NoError(c.t, err)
	for range upgrades {
		began := time.Now()
		require.NoError(c.t, store.SaveStamp(*found.Stamp))
		took = append(took, time.Since(began))
	}
	return took
}
