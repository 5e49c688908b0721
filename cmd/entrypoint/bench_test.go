package main_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/sequencer"
)

// upgrades is how many hand-overs one run measures.
const upgrades = 50

// BenchmarkHandoff measures what an upgrade costs between two nodes. All clocks are CLOCK_REALTIME of this machine, in
// nanoseconds. The old node notes the time as its last act, the new one as one of its first, and our log tells when the
// exec had succeeded; so the intervals contain more than our own work, never less:
//
//	to exec      the old node's last act → its exit → we notice, decide, write the checkpoint → exec of the new one is done
//	to first act the same, and the start of the new node's runtime, its arguments and its config
//	of ours      we have noticed the exit and decided → exec is done: files' check, durable write, fork
//	the write    the durable write of the checkpoint alone, of a twin in the same directory, after the run
func BenchmarkHandoff(b *testing.B) {
	for range b.N {
		with, without := measureHandoffs(b, true), measureHandoffs(b, false)
		b.ReportMetric(float64(quantile(with.toExec, 50).Nanoseconds()), "ns/handoff-median")
		b.ReportMetric(float64(quantile(with.toExec, 90).Nanoseconds()), "ns/handoff-p90")
		b.Log(handoffTable(with, without))
	}
}

// BenchmarkHealthcheck measures a probe from its start to its exit, beside a program that does nothing at all.
func BenchmarkHealthcheck(b *testing.B) {
	c := newChain(b, version{})
	c.statusAddress = fmt.Sprintf("127.0.0.1:%d", freePort(b))
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

// handoffTable is short, because the benchmark's log is cut after ten lines.
func handoffTable(with, without handoffs) string {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\n%d upgrades\twith a checkpoint file\t\t\twithout\t\t\t\n", upgrades)
	fmt.Fprint(w, "ms\tmedian\tp90\tmax\tmedian\tp90\tmax\t\n")
	for _, row := range []struct {
		what          string
		with, without []time.Duration
	}{
		{"to exec", with.toExec, without.toExec},
		{"to first act", with.toFirstAct, without.toFirstAct},
		{"of ours", with.ours, without.ours},
		{"the write", with.write, without.write},
	} {
		fmt.Fprintf(w, "%s\t%s\t%s\t\n", row.what, quantiles(row.with), quantiles(row.without))
	}
	fmt.Fprintf(w, "counted\t%d\t\t\t%d\t\t\t\n", len(with.toExec), len(without.toExec))
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

type handoffs struct{ toExec, toFirstAct, ours, write []time.Duration }

// measureHandoffs runs a chain through its upgrades. The nodes wait for finality long enough for their stop height to be
// read; an upgrade that was verified by another start all the same is left out.
func measureHandoffs(b *testing.B, durable bool) handoffs {
	b.Helper()
	const blocks = 16
	var versions []version
	for i := range upgrades + 1 {
		versions = append(versions, version{stop: uint64(blocks * (i + 1))})
	}
	c := newChain(b, versions...)
	for i := range c.versions {
		c.versions[i].node.Mock.DA = mockrollup.DAConfig{File: filepath.Join(c.dir, "da.json"), BlockTime: 20 * time.Millisecond, Finality: blocks + 4}
		c.writeConfig(i)
	}
	args := []string{"-c", c.manager, "-f", c.checkpoint}
	if !durable {
		args = []string{"-c", c.manager, "--no-checkpoint-file"}
	}
	var log []*logLine
	c.run(
		phase{name: "start", do: func(c *chain) { c.startWith(args...) }, events: []event{on("version started")}, trace: c.rest()},
		phase{name: "through", do: func(c *chain) { c.awaitFinished(); log = c.program.log.all() }, exit: exits(0), trace: c.rest()},
	)
	m := c.handoffs(log)
	if durable {
		m.write = c.twinWrites()
	}
	return m
}

// awaitFinished waits for the end of a chain that takes its time.
func (c *chain) awaitFinished() {
	c.t.Helper()
	select {
	case <-c.program.done:
	case <-time.After(10 * deadline):
		c.fatalf("the chain did not come to its end")
	}
}

// handoffs puts log and journal together.
func (c *chain) handoffs(log []*logLine) handoffs {
	c.t.Helper()
	entries, err := c.journal()
	require.NoError(c.t, err)
	runs := mockrollup.Runs(entries)
	started, exited := map[string]time.Time{}, map[string]time.Time{}
	for _, line := range log {
		at, err := time.Parse(time.RFC3339Nano, line.text("time"))
		require.NoError(c.t, err)
		switch line.text("msg") {
		case "version started":
			started[line.text("pid")] = at
		case "version exited":
			exited[line.text("version")] = at
		}
	}
	var m handoffs
	for i := 1; i < len(runs); i++ {
		before, after := runs[i-1], runs[i]
		if before.Start.Label == after.Start.Label || before.Exit == nil || *before.Exit.Code != 0 || after.Refused != nil {
			continue
		}
		exec, ok := started[fmt.Sprint(after.Start.PID)]
		decided, known := exited[strings.TrimPrefix(before.Start.Label, "v")]
		if !ok || !known {
			c.fatalf("the log has no start of process %d", after.Start.PID)
		}
		m.toExec = append(m.toExec, exec.Sub(before.Exit.Time))
		m.toFirstAct = append(m.toFirstAct, after.Start.Time.Sub(before.Exit.Time))
		m.ours = append(m.ours, exec.Sub(decided))
	}
	return m
}

// twinWrites measures the durable write of a checkpoint as it was in the middle of the run.
func (c *chain) twinWrites() []time.Duration {
	c.t.Helper()
	record, _, err := sequencer.ReadCheckpoint(c.checkpoint)
	require.NoError(c.t, err)
	record.History = record.History[:len(record.History)/2]
	store, err := sequencer.OpenFileStore(filepath.Join(filepath.Dir(c.checkpoint), "twin.json"))
	require.NoError(c.t, err)
	defer store.Close()
	var took []time.Duration
	store.OnSave(func(d time.Duration) { took = append(took, d) })
	for range upgrades {
		require.NoError(c.t, store.Save(record))
	}
	return took
}
