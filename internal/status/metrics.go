package status

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/sequencer"
)

// metric is one family of the answer of /metrics.
type metric struct {
	name, kind, help string
	samples          func(m *moment) []sample
}

// sample is one value. suffix is behind the family's name, labels are pairs of name and value.
type sample struct {
	suffix string
	labels []string
	value  float64
}

// moment is what the metrics are made of.
type moment struct {
	s     *Status
	state *sequencer.State
	now   time.Time
	ready bool
	alive bool
}

// metricTable lists every metric. A test compares it with the documentation.
func metricTable() []metric {
	return []metric{
		{"entrypoint_build_info", "gauge", "Version of this program and of Go; always 1.", func(m *moment) []sample {
			return one(1, "version", m.s.Version, "goversion", runtime.Version())
		}},
		{"entrypoint_start_time_seconds", "gauge", "When this process started, as a Unix time.", func(m *moment) []sample { return one(unixTime(m.s.started)) }},
		{"entrypoint_version_info", "gauge", "The version whose state it is, by the stamp: its index and its name; always 1.", func(m *moment) []sample {
			i := m.state.Record.VersionIndex
			return one(1, "version", strconv.Itoa(i), "name", m.s.Plan.Versions[i].Name)
		}},
		{"entrypoint_version", "gauge", "The index of the version whose state it is, from 0.", func(m *moment) []sample { return one(float64(m.state.Record.VersionIndex)) }},
		{"entrypoint_phase", "gauge", "1 for the phase of the sequence, 0 for all others.", phases},
		{"entrypoint_phase_start_time_seconds", "gauge", "When the phase began, as a Unix time.", func(m *moment) []sample { return one(unixTime(m.state.Since)) }},
		{"entrypoint_stopping", "gauge", "1 after a stop signal.", func(m *moment) []sample { return one(truth(m.state.Stopping)) }},
		{"entrypoint_alive", "gauge", "1 if /healthz answers 200.", func(m *moment) []sample { return one(truth(m.alive)) }},
		{"entrypoint_node_ready", "gauge", "1 if /readyz answers 200.", func(m *moment) []sample { return one(truth(m.ready)) }},
		{"entrypoint_height_blocks", "gauge", "The newest soft-confirmed height of the node that runs, in blocks; absent until it reports one.", func(m *moment) []sample {
			return ofReading(m, func(r *sequencer.Reading) float64 { return float64(r.Height) })
		}},
		{"entrypoint_height_timestamp_seconds", "gauge", "When that height was read, as a Unix time.", func(m *moment) []sample {
			return ofReading(m, func(r *sequencer.Reading) float64 { return unixTime(r.At) })
		}},
		{"entrypoint_height_change_timestamp_seconds", "gauge", "When the height rose last, or was first read, as a Unix time.", func(m *moment) []sample {
			return ofReading(m, func(*sequencer.Reading) float64 { return unixTime(m.state.RoseAt) })
		}},
		{"entrypoint_blocks_per_second", "gauge", "How fast the height rises, smoothed over about half a minute.", func(m *moment) []sample { return known(m.state.Rate, m.state.Rate > 0) }},
		{"entrypoint_start_height_blocks", "gauge", "The first height of the version, 0 for the first version.", func(m *moment) []sample { return one(float64(m.version().Start)) }},
		{"entrypoint_stop_height_blocks", "gauge", "The last height of the version; absent if it has no end.", func(m *moment) []sample { return known(float64(m.version().Stop), m.version().Stop > 0) }},
		{"entrypoint_upgrade_remaining_blocks", "gauge", "Blocks to the stop height.", func(m *moment) []sample {
			blocks, _, ok := m.state.UntilUpgrade(m.s.Plan)
			return known(float64(blocks), ok)
		}},
		{"entrypoint_upgrade_eta_seconds", "gauge", "Time to the stop height at the present rate; absent if the height does not rise.", func(m *moment) []sample {
			_, eta, ok := m.state.UntilUpgrade(m.s.Plan)
			return known(eta.Seconds(), ok && eta >= 0)
		}},
		{"entrypoint_node_starts_total", "counter", "Starts of nodes, by version, without those that only asked for a height.", func(m *moment) []sample { return byVersion(m.state.Starts) }},
		{"entrypoint_node_restarts_total", "counter", "Starts of a node of a version that had been started before in this run.", func(m *moment) []sample { return one(float64(restarts(m.state))) }},
		{"entrypoint_process_exits_total", "counter", "Ends of nodes and migrations, by exit code; 128+n is death by signal n. Without nodes that were only asked.", exits},
		{"entrypoint_signals_forwarded_total", "counter", "Signals that were sent to nodes and migrations.", signals},
		{"entrypoint_orphans_reaped_total", "counter", "Processes reaped that others had started.", func(m *moment) []sample {
			if m.s.Orphans == nil {
				return one(0)
			}
			return one(float64(m.s.Orphans()))
		}},
		{"entrypoint_leftovers_ended_total", "counter", "Processes that nodes left behind and that were ended.", func(m *moment) []sample { return one(float64(m.state.Leftovers)) }},
		{"entrypoint_migration_duration_seconds", "gauge", "How long the last run of a version's migration took, or takes.", migrationDurations},
		{"entrypoint_handover_duration_seconds", "gauge", "From the exit of the version before to the start of what follows.", func(m *moment) []sample {
			return handOvers(m, func(over sequencer.HandOver) time.Duration { return over.Took })
		}},
		{"entrypoint_handover_question_seconds", "gauge", "The part of that in which the node of the version before was asked for its height.", func(m *moment) []sample {
			return handOvers(m, func(over sequencer.HandOver) time.Duration { return over.Asked })
		}},
		{"rollup_question_seconds", "summary", "Questions to nodes for the height of their state, from the start of the node to its end.", func(m *moment) []sample {
			return total(m.state.Questions.Took, m.state.Questions.Asked)
		}},
		{"rollup_questions_unanswered_total", "counter", "Those that gave no height.", func(m *moment) []sample {
			return one(float64(m.state.Questions.Asked - m.state.Questions.Answered))
		}},
		{"rollup_cannot_be_asked", "gauge", "1 if the node of the version cannot be asked, so that a person has to say that it is complete.", func(m *moment) []sample { return one(truth(m.state.CannotBeAsked)) }},
		{"entrypoint_checkpoint_write_duration_seconds", "summary", "Writes of stamp and checkpoint that became durable.", func(m *moment) []sample {
			return total(m.state.Writes.Took, m.state.Writes.Done)
		}},
		{"entrypoint_checkpoint_write_failures_total", "counter", "Writes of stamp and checkpoint that failed.", func(m *moment) []sample { return one(float64(m.state.Writes.Failed)) }},
		{"entrypoint_preflight_problems", "gauge", "How many problems the last preflight of a version found; version all is what they share.", preflights},
		{"entrypoint_upgrade_preflight_problems", "gauge", "How many of them the next version would meet: its own, and those of all versions.", func(m *moment) []sample {
			_, done := m.state.Preflight[m.state.Record.VersionIndex+1]
			return known(float64(len(upgradeFindings(m.state))), done)
		}},
		{"entrypoint_preflight_timestamp_seconds", "gauge", "When the last preflight of any version was done, as a Unix time.", func(m *moment) []sample {
			var last time.Time
			for _, p := range m.state.Preflight {
				if p.At.After(last) {
					last = p.At
				}
			}
			return known(unixTime(last), !last.IsZero())
		}},
		{"entrypoint_height_queries_total", "counter", "Queries of the height over HTTP.", func(m *moment) []sample { return one(float64(m.state.Queries)) }},
		{"entrypoint_height_query_failures_total", "counter", "Queries of the height over HTTP without a useful answer; a node that starts up gives none.", func(m *moment) []sample { return one(float64(m.state.QueryFailures)) }},
	}
}

func (m *moment) version() sequencer.Version { return m.s.Plan.Versions[m.state.Record.VersionIndex] }

// one is a family of one value.
func one(value float64, labels ...string) []sample { return []sample{{labels: labels, value: value}} }

// known is a family of one value if ok, else it is absent: a zero would be believed.
func known(value float64, ok bool) []sample {
	if !ok {
		return nil
	}
	return one(value)
}

func ofReading(m *moment, value func(r *sequencer.Reading) float64) []sample {
	if m.state.Height == nil {
		return nil
	}
	return one(value(m.state.Height))
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

func phases(m *moment) []sample {
	var all []sample
	for _, phase := range sequencer.Phases() {
		all = append(all, one(truth(phase == m.state.Phase), "phase", string(phase))...)
	}
	return all
}

func byVersion(counts map[int]uint64) []sample {
	var all []sample
	for _, i := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, one(float64(counts[i]), "version", strconv.Itoa(i))...)
	}
	return all
}

func exits(m *moment) []sample {
	var all []sample
	for _, migration := range []bool{false, true} {
		for code := range 256 {
			if n := m.state.Exits[sequencer.ExitCount{Migration: migration, Code: code}]; n > 0 {
				process := map[bool]string{false: "node", true: "migration"}[migration]
				all = append(all, one(float64(n), "process", process, "code", strconv.Itoa(code))...)
			}
		}
	}
	return all
}

func signals(m *moment) []sample {
	var all []sample
	for _, sig := range slices.Sorted(maps.Keys(m.state.Signals)) {
		all = append(all, one(float64(m.state.Signals[sig]), "signal", signalName(sig))...)
	}
	return all
}

func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return strconv.Itoa(int(sig))
}

func migrationDurations(m *moment) []sample {
	last := map[int]float64{}
	for _, run := range migrations(m.state, m.now) {
		last[run.VersionIndex] = run.Seconds
	}
	return gauges(last)
}

// handOvers are durations of the last hand-over to each version.
func handOvers(m *moment, part func(over sequencer.HandOver) time.Duration) []sample {
	last := map[int]float64{}
	for _, over := range m.state.HandOvers {
		last[over.Version] = part(over).Seconds()
	}
	return gauges(last)
}

func preflights(m *moment) []sample {
	count, shared := map[int]float64{}, []sample(nil)
	for i, p := range m.state.Preflight {
		if i == sequencer.WholePlan {
			shared = one(float64(len(p.Findings)), "version", "all")
			continue
		}
		count[i] = float64(len(p.Findings))
	}
	return append(gauges(count), shared...)
}

func gauges(values map[int]float64) []sample {
	var all []sample
	for _, i := range slices.Sorted(maps.Keys(values)) {
		all = append(all, one(values[i], "version", strconv.Itoa(i))...)
	}
	return all
}

// metrics writes all metrics in the text format of Prometheus, version 0.0.4.
func (s *Status) metrics(ctx context.Context) []byte {
	state, now := s.state.Load(), time.Now()
	m := &moment{s: s, state: state, now: now}
	m.alive, _ = s.alive(state, now)
	m.ready, _ = s.ready(ctx, state, roleAny)
	text := make([]byte, 0, 8<<10)
	for _, family := range metricTable() {
		text = family.appendTo(text, m)
	}
	return text
}

var (
	helpEscapes  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// appendTo writes the family, or nothing if it has no value.
func (f metric) appendTo(text []byte, m *moment) []byte {
	samples := f.samples(m)
	if len(samples) == 0 {
		return text
	}
	text = append(text, "# HELP "+f.name+" "+helpEscapes.Replace(f.help)+"\n# TYPE "+f.name+" "+f.kind+"\n"...)
	for _, s := range samples {
		text = append(text, f.name+s.suffix...)
		for i := 0; i < len(s.labels); i += 2 {
			text = append(text, map[bool]byte{true: '{', false: ','}[i == 0])
			text = append(text, s.labels[i]+`="`+labelEscapes.Replace(s.labels[i+1])+`"`...)
		}
		if len(s.labels) > 0 {
			text = append(text, '}')
		}
		text = append(strconv.AppendFloat(append(text, ' '), s.value, 'g', -1, 64), '\n')
	}
	return text
}
