package status

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/sovereign"
)

// asJSON is the answer of /status, with our pid made the same everywhere.
func asJSON(t *testing.T, s *Status) string {
	t.Helper()
	r := s.Report(t.Context())
	r.Entrypoint.Pid = 1
	text, err := json.MarshalIndent(r, "", "  ")
	require.NoError(t, err)
	return string(text) + "\n"
}

func TestReportInJSON(t *testing.T) {
	in(t, func(t *testing.T) {
		golden(t, "running.json", asJSON(t, newStatus(running(), sovereign.Readiness{Leads: true})))
	})
}

func TestReportBeforeAnythingIsKnown(t *testing.T) {
	in(t, func(t *testing.T) {
		golden(t, "preparing.json", asJSON(t, New(Options{Plan: threeVersions(), Version: "v9.8.7"})))
	})
}

// No answer has a secret: they are for dashboards, and for everybody who reaches the port.
func TestNoAnswerHasASecret(t *testing.T) {
	in(t, func(t *testing.T) {
		s := newStatus(running(), sovereign.Readiness{Leads: true})
		for _, text := range []string{asJSON(t, s), string(s.metrics(t.Context())), s.Report(t.Context()).View()} {
			assert.NotContains(t, text, "secret")
			assert.NotContains(t, text, "TOKEN")
		}
	})
}

func TestReportOfEachPhase(t *testing.T) {
	in(t, func(t *testing.T) {
		for _, test := range []struct {
			name   string
			change func(s *sequencer.State)
			check  func(t *testing.T, r Report)
		}{
			{"the last version has no upgrade", func(s *sequencer.State) { s.Record.VersionIndex, s.Process.Version = 2, 2 }, func(t *testing.T, r Report) {
				assert.Nil(t, r.NextUpgrade)
				assert.Equal(t, []string{"completed", "completed", "current"}, states(r))
			}},
			{"finished", func(s *sequencer.State) {
				s.Phase, s.Record.VersionIndex, s.Record.Phase, s.Process = sequencer.PhaseFinished, 2, checkpoint.PhaseFinished, sequencer.ProcessState{}
				s.Record.History = append(s.Record.History, checkpoint.Entry{VersionIndex: 2, CompletedAt: time.Now(), Proof: checkpoint.ProofWord})
			}, func(t *testing.T, r Report) {
				assert.Equal(t, []string{"completed", "completed", "completed"}, states(r))
				assert.Equal(t, checkpoint.ProofWord, r.Versions[2].Proof)
				assert.Nil(t, r.Node)
				assert.Nil(t, r.NextUpgrade)
			}},
			{"a migration runs", func(s *sequencer.State) {
				s.Phase, s.Height, s.Rate, s.Record.MigrationCompleted = sequencer.PhaseMigrating, nil, 0, false
				s.Process = sequencer.ProcessState{Pid: 9, Version: 1, Migration: true}
				s.Migrations = append(s.Migrations, sequencer.MigrationRun{Version: 1, StartedAt: time.Now().Add(-time.Minute)})
			}, func(t *testing.T, r Report) {
				assert.Nil(t, r.Node)
				assert.Nil(t, r.Height)
				assert.Nil(t, r.BlocksPerSecond)
				assert.Nil(t, r.NextUpgrade.RemainingBlocks)
				assert.Equal(t, "running", r.Versions[1].Migration)
				require.Len(t, r.Migrations, 2)
				assert.Equal(t, "exited 0", r.Migrations[0].Exit)
				assert.Equal(t, Migration{1, r.Migrations[1].StartedAt, 60, ""}, r.Migrations[1])
			}},
			{"a migration is due", func(s *sequencer.State) {
				s.Record.VersionIndex, s.Record.MigrationCompleted, s.Record.History = 0, false, nil
			}, func(t *testing.T, r Report) {
				assert.Equal(t, "due", r.Versions[1].Migration)
				assert.Nil(t, r.Versions[1].MigrationBegunAt)
			}},
			{"a migration was begun and does not run", func(s *sequencer.State) {
				s.Record.Phase, s.Record.MigrationCompleted = checkpoint.PhaseMigrating, false
				s.Record.History[1].Migration.CompletedAt = time.Time{}
			}, func(t *testing.T, r Report) {
				assert.Equal(t, []string{"completed", "current", "upcoming"}, states(r), "an entry in the history does not make it complete")
				assert.Equal(t, "begun", r.Versions[1].Migration)
				assert.NotNil(t, r.Versions[1].MigrationBegunAt)
				assert.Nil(t, r.Versions[1].MigrationCompletedAt)
				assert.Equal(t, 2, r.Versions[1].MigrationRuns)
			}},
			{"a checkpoint without a history", func(s *sequencer.State) { s.Record.History = nil }, func(t *testing.T, r Report) {
				assert.Equal(t, []string{"completed", "current", "upcoming"}, states(r))
				assert.Nil(t, r.Versions[0].CompletedAt)
			}},
			{"its node is asked", func(s *sequencer.State) {
				s.Phase, s.Height, s.Process.Asked = sequencer.PhaseAsking, nil, true
			}, func(t *testing.T, r Report) {
				assert.True(t, r.Node.Asked)
				assert.False(t, r.Ready)
			}},
			{"its node cannot be asked", func(s *sequencer.State) { s.CannotBeAsked = true }, func(t *testing.T, r Report) {
				assert.True(t, r.CannotBeAsked)
				assert.Contains(t, r.View(), "a person has to say that it is complete")
			}},
			{"its state is damaged", func(s *sequencer.State) { s.Failure.Cause = sequencer.StateDamaged }, func(t *testing.T, r Report) {
				assert.Equal(t, sequencer.StateDamaged, r.LastFailure.Cause)
			}},
			{"the height stands still", func(s *sequencer.State) { s.Rate = 0 }, func(t *testing.T, r Report) {
				assert.EqualValues(t, 40, *r.NextUpgrade.RemainingBlocks)
				assert.Nil(t, r.NextUpgrade.ETASeconds)
				assert.Nil(t, r.NextUpgrade.ETAAt)
			}},
			{"the last version ends", func(s *sequencer.State) { s.Record.VersionIndex, s.Process.Version = 2, 2 }, nil},
		} {
			t.Log(test.name)
			state := running()
			test.change(&state)
			s := newStatus(state, sovereign.Readiness{Leads: true})
			if test.check == nil {
				s.Plan.Versions[2].Stop = 300
				u := s.Report(t.Context()).NextUpgrade
				assert.Nil(t, u.VersionIndex)
				assert.Empty(t, u.Version)
				assert.EqualValues(t, 300, u.StopHeight)
				continue
			}
			test.check(t, s.Report(t.Context()))
		}
	})
}

func states(r Report) []string {
	var all []string
	for _, v := range r.Versions {
		all = append(all, v.State)
	}
	return all
}

func TestViewForATerminal(t *testing.T) {
	in(t, func(t *testing.T) {
		golden(t, "running.txt", newStatus(running(), sovereign.Readiness{Why: "the node is syncing: DA height 5 of 9"}).Report(t.Context()).View())
		golden(t, "preparing.txt", New(Options{Plan: threeVersions()}).Report(t.Context()).View())
		asking := running()
		asking.Phase, asking.Process.Asked, asking.Stopping, asking.Height, asking.Rate = sequencer.PhaseAsking, true, true, nil, 0
		golden(t, "asking.txt", newStatus(asking, sovereign.Readiness{Leads: true}).Report(t.Context()).View())
	})
}

// A name in the config, or the words of a failure, must not move the operator's cursor.
func TestViewObeysNoName(t *testing.T) {
	in(t, func(t *testing.T) {
		state := running()
		state.Failure.What = "\x1b[2J\r\x9b31m gone"
		s := newStatus(state, sovereign.Readiness{Why: "\x1b]0;title\a"})
		s.Plan.Versions[2].Name = "v2\x1b[31m\nALIVE\u202e"
		view := s.Report(t.Context()).View()
		for _, r := range view {
			assert.True(t, r == '\n' || r >= ' ' && r != 0x7f && (r < 0x80 || r >= 0xa0), "%q", r)
		}
		assert.Contains(t, view, "v2?[31m?ALIVE")
	})
}

func TestBarStaysInItsBounds(t *testing.T) {
	for _, test := range []struct {
		start, stop, remaining uint64
		percent                string
	}{
		{0, 100, 101, "0 %"},
		{0, 100, 0, "100 %"},
		{101, 200, 50, "50 %"},
		{101, 200, 1 << 63, "0 %"}, // below its start
		{0, 1<<64 - 2, 1 << 63, "50 %"},
		{5, 5, 1, "0 %"},
		{5, 5, 0, "100 %"},
	} {
		line := bar(test.start, test.stop, test.remaining)
		assert.True(t, strings.HasSuffix(line, "] "+test.percent), line)
		assert.Len(t, strings.TrimSuffix(line, " "+test.percent), barWidth+2)
	}
}

func TestDurationsAreForPeople(t *testing.T) {
	for seconds, want := range map[float64]string{
		0: "0.0 s", 0.04: "0.0 s", 9.99: "10.0 s", 59.9: "59 s", 60: "1 min 0 s", 3599: "59 min 59 s", 3600: "1 h 0 min", 200000: "2 days 7 h", 1e300: "11574 days 1 h",
	} {
		assert.Equal(t, want, duration(seconds), seconds)
	}
}

var metricLine = regexp.MustCompile(`^([a-z_]+)(\{[a-z]+="(?:[^"\\\n]|\\.)*"(?:,[a-z]+="(?:[^"\\\n]|\\.)*")*\})? (\S+)$`)

func TestMetricsOfARunningVersion(t *testing.T) {
	in(t, func(t *testing.T) {
		s := newStatus(running(), sovereign.Readiness{Leads: true})
		text := regexp.MustCompile(`goversion="[^"]+"`).ReplaceAllString(string(s.metrics(t.Context())), `goversion="go"`)
		golden(t, "running.prom", text)
	})
}

func TestEveryMetricHasASample(t *testing.T) {
	in(t, func(t *testing.T) {
		text := string(newStatus(running(), sovereign.Readiness{}).metrics(t.Context()))
		for _, family := range metricTable() {
			assert.Contains(t, text, "# TYPE "+family.name+" "+family.kind+"\n")
		}
		for line := range strings.Lines(text) {
			if line = strings.TrimSuffix(line, "\n"); strings.HasPrefix(line, "#") {
				continue
			}
			m := metricLine.FindStringSubmatch(line)
			require.NotNil(t, m, line)
			_, err := strconv.ParseFloat(m[3], 64)
			require.NoError(t, err, line)
		}
	})
}

func TestWhatIsNotKnownIsNoMetric(t *testing.T) {
	in(t, func(t *testing.T) {
		text := string(New(Options{Plan: threeVersions()}).metrics(t.Context()))
		for _, absent := range []string{"height_blocks ", "height_timestamp", "height_change", "blocks_per_second", "eta", "remaining", "preflight_timestamp"} {
			if absent == "height_blocks " {
				assert.NotContains(t, text, "\nentrypoint_height_blocks ")
				continue
			}
			assert.NotContains(t, text, absent)
		}
		assert.Contains(t, text, "entrypoint_stop_height_blocks 100\n")
	})
}

func TestNamesAreEscapedInMetrics(t *testing.T) {
	in(t, func(t *testing.T) {
		s := newStatus(running(), sovereign.Readiness{})
		s.Plan.Versions[1].Name = "a\"b\\c\nd"
		assert.Contains(t, string(s.metrics(t.Context())), `entrypoint_version_info{version="1",name="a\"b\\c\nd"} 1`+"\n")
	})
}
