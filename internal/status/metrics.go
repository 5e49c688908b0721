package status

import (
	"cmp"
	"context"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rollup-entrypoint/internal/signalname"
	"rollup-entrypoint/sequencer"
)

const counter, gauge, summary = "counter", "gauge", "summary"

// metric is one family in the answer of /metrics. Without samples it is left out.
type metric struct {
	name, kind, help string
	samples          []sample
}

// sample is one value. suffix follows the family's name; labels are pairs of name and value.
type sample struct {
	suffix string
	labels []string
	value  float64
}

// moment is the source of the metrics.
type moment struct {
	*sequencer.State
	s            *Status
	now          time.Time
	alive, ready bool
}

// metricTable lists every metric. A test compares it with the documentation.
func (m *moment) metricTable() []metric {
	return slices.Concat(m.ofTheRun(), m.ofTheHeight(), m.ofProcesses(), m.ofTheUpgrade(), m.ofTheUndoPoint(), m.ofTheRecord())
}

func (m *moment) ofTheRun() []metric {
	i := m.Record.VersionIndex
	index := strconv.Itoa(i)
	return []metric{
		{"entrypoint_build_info", gauge, "Version of this program and of Go; always 1.", one(1, "version", m.s.Version, "goversion", runtime.Version())},
		{"entrypoint_start_time_seconds", gauge, "When this process started, as a Unix time.", one(unixTime(m.s.started))},
		{"entrypoint_version_info", gauge, "Index and name of the version that the state belongs to, by the stamp; always 1.", one(1, "version", index, "name", m.s.Plan.Versions[i].Name)},
		{"entrypoint_version", gauge, "Index of the version that the state belongs to, from 0.", one(float64(i))},
		{"entrypoint_phase", gauge, "1 for the current phase of the sequence, 0 for all others.", m.phases()},
		{"entrypoint_phase_start_time_seconds", gauge, "When the phase began, as a Unix time.", one(unixTime(m.Since))},
		{"entrypoint_plan_outdated", gauge, "1 if the plan on disk is not the one that this run has read, or cannot be read any more.", one(truth(m.s.planOutdated.Load()))},
		{"entrypoint_stopping", gauge, "1 after a stop signal.", one(truth(m.Stopping))},
		{"entrypoint_alive", gauge, "1 if /healthz answers 200.", one(truth(m.alive))},
		{"entrypoint_node_ready", gauge, "1 if /readyz answers 200.", one(truth(m.ready))},
	}
}

func (m *moment) ofTheHeight() []metric {
	v := m.s.Plan.Versions[m.Record.VersionIndex]
	known, read := m.Height != nil, sequencer.Reading{}
	if known {
		read = *m.Height
	}
	blocks, eta, ends := m.UntilUpgrade(m.s.Plan)
	return []metric{
		{"entrypoint_height_blocks", gauge, "Newest soft-confirmed height of the running node, in blocks; absent until it reports one.", oneIf(known, float64(read.Height))},
		{"entrypoint_height_timestamp_seconds", gauge, "When that height was read, as a Unix time.", oneIf(known, unixTime(read.At))},
		{"entrypoint_height_change_timestamp_seconds", gauge, "When the height last rose, or was first read, as a Unix time.", oneIf(known, unixTime(m.RoseAt))},
		{"entrypoint_blocks_per_second", gauge, "How fast the height rises, smoothed over about half a minute.", oneIf(m.Rate > 0, m.Rate)},
		{"entrypoint_start_height_blocks", gauge, "First height of the version, 0 for the first version.", one(float64(v.Start))},
		{"entrypoint_stop_height_blocks", gauge, "Stop height of the version; absent if it has none.", oneIf(v.Stop > 0, float64(v.Stop))},
		{"entrypoint_upgrade_remaining_blocks", gauge, "Blocks left to the stop height.", oneIf(ends, float64(blocks))},
		{"entrypoint_upgrade_eta_seconds", gauge, "Time left to the stop height at the current rate; absent if the height does not rise.", oneIf(ends && eta >= 0, eta.Seconds())},
	}
}

func (m *moment) ofProcesses() []metric {
	var oldest float64
	if len(m.Left) > 0 {
		oldest = m.now.Sub(m.Left[0].Since).Seconds()
	}
	return []metric{
		{"entrypoint_node_starts_total", counter, "Starts of nodes, by version; nodes started only for a question do not count.", each("version", strconv.Itoa, m.Starts)},
		{"entrypoint_node_restarts_total", counter, "Starts of a node whose version had been started before in this run.", one(float64(restarts(m.State)))},
		{"entrypoint_process_exits_total", counter, "Exits of nodes, migrations and hooks, by exit code; 128+n means killed by signal n. Nodes started only for a question do not count.", m.exits()},
		{"entrypoint_signals_forwarded_total", counter, "Signals sent to nodes and migrations.", each("signal", signalLabel, m.Signals)},
		{"entrypoint_signals_undelivered_total", counter, "Signals that the kernel refused to deliver, for example because the process changed its user.", each("signal", signalLabel, m.Undelivered)},
		{"entrypoint_orphans_reaped_total", counter, "Reaped processes that the entrypoint had not started itself.", one(float64(m.s.Orphans()))},
		{"entrypoint_leftovers_ended_total", counter, "Leftover processes of nodes that were ended.", one(float64(m.Leftovers))},
		{"entrypoint_leftover_processes", gauge, "Leftover processes that the entrypoint is waiting for.", one(float64(len(m.Left)))},
		{"entrypoint_leftover_oldest_seconds", gauge, "How long the entrypoint has waited for the oldest of them; absent if there is none.", oneIf(len(m.Left) > 0, oldest)},
	}
}

func (m *moment) ofTheUpgrade() []metric {
	migrated, took, asked := map[int]float64{}, map[int]float64{}, map[int]float64{}
	for _, run := range migrations(m.State, m.now) {
		migrated[run.VersionIndex] = run.Seconds
	}
	for _, over := range m.HandOvers {
		took[over.Version], asked[over.Version] = over.Took.Seconds(), over.Asked.Seconds()
	}
	questions := m.Questions
	return []metric{
		{"entrypoint_migration_duration_seconds", gauge, "How long the last run of a version's migration took, or has been running.", each("version", strconv.Itoa, migrated)},
		{"entrypoint_handover_duration_seconds", gauge, "Time from the exit of one version to the start of what follows it.", each("version", strconv.Itoa, took)},
		{"entrypoint_handover_question_seconds", gauge, "The part of that time in which the old version's node was asked for its durable height.", each("version", strconv.Itoa, asked)},
		{"rollup_question_seconds", summary, "Questions to nodes for their durable height, from the start of the node to its end.", total(questions.Took, questions.Asked)},
		{"rollup_questions_unanswered_total", counter, "Questions that gave no height.", one(float64(questions.Asked - questions.Answered))},
		{"rollup_cannot_be_asked", gauge, "1 if the version's node cannot be asked for its durable height: an operator must declare the version complete.", one(truth(m.CannotBeAsked))},
		{"entrypoint_state_damaged", gauge, "1 if the node reported a damaged state, in this run or an earlier one, and no height since.", one(truth(m.DamageReported))},
	}
}

func (m *moment) ofTheRecord() []metric {
	found, last := map[int]int{}, time.Time{}
	for i, p := range m.Preflight {
		found[i] = len(p.Findings)
		if p.At.After(last) {
			last = p.At
		}
	}
	_, next := found[m.Record.VersionIndex+1]
	return []metric{
		{"entrypoint_checkpoint_write_duration_seconds", summary, "Writes of stamp and checkpoint that became durable.", total(m.Writes.Took, m.Writes.Done)},
		{"entrypoint_checkpoint_write_failures_total", counter, "Writes of stamp and checkpoint that failed.", one(float64(m.Writes.Failed))},
		{"entrypoint_preflight_problems", gauge, "Problems that the last preflight of a version found; version all is what they share.", each("version", versionOrAll, found)},
		{"entrypoint_upgrade_preflight_problems", gauge, "Problems that affect the next version: its own, and those that all versions share.", oneIf(next, float64(len(upgradeFindings(m.State))))},
		{"entrypoint_preflight_timestamp_seconds", gauge, "When the last preflight of any version ended, as a Unix time.", oneIf(!last.IsZero(), unixTime(last))},
		{"entrypoint_height_queries_total", counter, "Queries for the height over HTTP.", one(float64(m.Queries))},
		{"entrypoint_height_query_failures_total", counter, "Queries for the height over HTTP without a useful answer; a node that is starting up gives none.", one(float64(m.QueryFailures))},
	}
}

// one is a family of one value.
func one(value float64, labels ...string) []sample { return []sample{{labels: labels, value: value}} }

// oneIf is a family of one value if it is known. Otherwise the family is absent: people would believe a zero.
func oneIf(known bool, value float64) []sample {
	if !known {
		return nil
	}
	return one(value)
}

// each is a family with a value for each key, which name turns into a label.
func each[K cmp.Ordered, V int | uint64 | float64](label string, name func(K) string, values map[K]V) []sample {
	var all []sample
	for _, key := range slices.Sorted(maps.Keys(values)) {
		all = append(all, one(float64(values[key]), label, name(key))...)
	}
	return all
}

// total is a summary without quantiles.
func total(took time.Duration, count uint64) []sample {
	return []sample{{suffix: "_sum", value: took.Seconds()}, {suffix: "_count", value: float64(count)}}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unixTime(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (m *moment) phases() (all []sample) {
	for _, phase := range sequencer.Phases() {
		all = append(all, one(truth(phase == m.Phase), "phase", string(phase))...)
	}
	return all
}

func (m *moment) exits() (all []sample) {
	for _, process := range []string{"node", "migration", "hook"} {
		for code := range 256 {
			if n := m.Exits[sequencer.ExitCount{Migration: process == "migration", Hook: process == "hook", Code: code}]; n > 0 {
				all = append(all, one(float64(n), "process", process, "code", strconv.Itoa(code))...)
			}
		}
	}
	return all
}

func versionOrAll(i int) string {
	if i == sequencer.WholePlan {
		return "all"
	}
	return strconv.Itoa(i)
}

// signalLabel is the name of a signal, or the number alone of a real-time signal.
func signalLabel(sig syscall.Signal) string { return strings.TrimPrefix(signalname.Of(sig), "signal ") }

func (s *Status) moment(ctx context.Context) *moment {
	m := &moment{State: s.state.Load(), s: s, now: time.Now()}
	_, notReady := s.ready(ctx, m.State, roleAny)
	m.ready, m.alive = notReady == "", s.notAlive(m.State, m.now) == ""
	return m
}

// metrics writes all metrics in the text format of Prometheus, version 0.0.4.
func (s *Status) metrics(ctx context.Context) []byte {
	text := make([]byte, 0, 8<<10)
	for _, family := range s.moment(ctx).metricTable() {
		text = family.appendTo(text)
	}
	return text
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// appendTo writes the family, or nothing if it has no value.
func (f metric) appendTo(text []byte) []byte {
	if len(f.samples) == 0 {
		return text
	}
	text = append(text, "# HELP "+f.name+" "+f.help+"\n# TYPE "+f.name+" "+f.kind+"\n"...)
	for _, s := range f.samples {
		text = append(text, f.name+s.suffix...)
		separator := "{"
		for i := 0; i < len(s.labels); i += 2 {
			text = append(text, separator+s.labels[i]+`="`+labelEscapes.Replace(s.labels[i+1])+`"`...)
			separator = ","
		}
		if len(s.labels) > 0 {
			text = append(text, '}')
		}
		text = append(strconv.AppendFloat(append(text, ' '), s.value, 'g', -1, 64), '\n')
	}
	return text
}
