package status

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

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
	r.Entrypoint.Pid, r.Entrypoint.Host = 1, "node-7"
	text, err := json.MarshalIndent(r, "", "  ")
	require.NoError(t, err)
	return string(text) + "\n"
}

func TestReportInJSON(t *testing.T) {
	in(t, func(t *testing.T) {
		s := newStatus(running(), sovereign.Readiness{Leads: true})
		s.Follow(failedRun())
		golden(t, "running.json", asJSON(t, s))
	})
}

func TestReportBeforeAnythingIsKnown(t *testing.T) {
	in(t, func(t *testing.T) {
		golden(t, "preparing.json", asJSON(t, New(Options{Plan: threeVersions(), Version: "v9.8.7"})))
	})
}

// No answer has a secret: answers are for dashboards, and for anyone who can reach the port.
func TestNoAnswerHasASecret(t *testing.T) {
	in(t, func(t *testing.T) {
		s := newStatus(running(), sovereign.Readiness{Leads: true})
		for _, text := range []string{asJSON(t, s), string(s.metrics(t.Context())), s.Report(t.Context()).View(0)} {
			assert.NotContains(t, text, "secret")
			assert.NotContains(t, text, "TOKEN")
		}
	})
}

// reportCase is a change of a run, and what its report says then.
type reportCase struct {
	name   string
	change func(s *sequencer.State)
	check  func(t *testing.T, r Report)
}

func (c reportCase) run(t *testing.T) {
	t.Helper()
	t.Log(c.name)
	state := running()
	c.change(&state)
	c.check(t, newStatus(state, sovereign.Readiness{Leads: true}).Report(t.Context()))
}

func TestReportOfEachPhase(t *testing.T) {
	in(t, func(t *testing.T) {
		for _, test := range []reportCase{
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
				assert.Contains(t, r.View(0), "an operator must declare the version complete")
			}},
			{"its state is damaged", func(s *sequencer.State) { s.Failure.Cause = sequencer.StateDamaged }, func(t *testing.T, r Report) {
				assert.Equal(t, sequencer.StateDamaged, r.LastFailure.Cause)
			}},
			{"the height does not rise", func(s *sequencer.State) { s.Rate = 0 }, func(t *testing.T, r Report) {
				assert.EqualValues(t, 40, *r.NextUpgrade.RemainingBlocks)
				assert.Nil(t, r.NextUpgrade.ETASeconds)
				assert.Nil(t, r.NextUpgrade.ETAAt)
			}},
		} {
			test.run(t)
		}
	})
}

func TestReportOfAMigration(t *testing.T) {
	in(t, func(t *testing.T) {
		for _, test := range []reportCase{
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
		} {
			test.run(t)
		}
	})
}

func TestReportOfWhatComesBeforeAnUpgrade(t *testing.T) {
	in(t, func(t *testing.T) {
		for _, test := range []reportCase{
			{"held", func(s *sequencer.State) { s.Phase, s.Process = sequencer.PhaseHeld, sequencer.ProcessState{} }, func(t *testing.T, r Report) {
				assert.True(t, r.Alive)
				assert.False(t, r.Ready)
				assert.Contains(t, r.View(0), "node-7 · v1 (version 1): held for 1 h 0 min\n")
				assert.Contains(t, r.View(0), "\nhold      nothing follows while /data/hold exists: 'entrypoint resume --hold-file /data/hold' removes it\n")
			}},
			{"held, at its confirmed stop height", func(s *sequencer.State) {
				s.Phase, s.Process, s.Height, s.Record.Height = sequencer.PhaseHeld, sequencer.ProcessState{}, nil, new(uint64(220))
				s.Record.History[1].CompletedAt = time.Now()
			}, func(t *testing.T, r Report) {
				assert.Nil(t, r.Height)
				assert.EqualValues(t, 220, *r.DurableHeight)
				assert.Contains(t, r.View(0), "\nheight    220 (durable, confirmed)\n")
			}},
			{"held from its start", func(s *sequencer.State) {
				s.Phase, s.Process, s.Height, s.Record.Height = sequencer.PhaseHeld, sequencer.ProcessState{}, nil, new(uint64(150))
			}, func(t *testing.T, r Report) {
				assert.Contains(t, r.View(0), "\nheight    150 or more (durable, when its node was asked last)\n")
			}},
			{"a node starts", func(s *sequencer.State) { s.Height, s.Record.Height = nil, new(uint64(150)) }, func(t *testing.T, r Report) {
				assert.Contains(t, r.View(0), "\nheight    not known\n", "it may be far above by now")
			}},
			{"no hold, no undo point", func(s *sequencer.State) {
				s.HoldFile, s.UndoPoint, s.Copying, s.NoUndoPoint, s.PutBack = "", nil, nil, "", 0
			}, func(t *testing.T, r Report) {
				assert.Nil(t, r.HoldFile)
				assert.Nil(t, r.UndoPoint)
				assert.Nil(t, r.Copying)
				assert.NotContains(t, r.View(0), "undo")
				assert.NotContains(t, r.View(0), "hold")
			}},
			{"a copy begins", func(s *sequencer.State) { s.Phase, s.Copying.Done = sequencer.PhaseCopying, 0 }, func(t *testing.T, r Report) {
				assert.Nil(t, r.Copying.ETASeconds, "nobody knows its rate yet")
				assert.Contains(t, r.View(0), ": making an undo point for ")
				assert.Contains(t, r.View(0), "\ncopying   0.0 kB of 2.0 GB (copy)\n")
			}},
			{"a state that has shrunk since it was measured", func(s *sequencer.State) { s.Copying.Done = s.Copying.Total + 1 }, func(t *testing.T, r Report) {
				assert.Zero(t, *r.Copying.ETASeconds)
			}},
			{"an undo point of an unknown height", func(s *sequencer.State) { s.UndoPoint.Height = nil }, func(t *testing.T, r Report) {
				assert.Nil(t, r.UndoPoint.Height)
				assert.Contains(t, r.View(0), "\nundo      v0, 3.3 GB (reflink), made ")
			}},
			{"a hook runs", func(s *sequencer.State) {
				s.Phase, s.Height = sequencer.PhaseHook, nil
				s.Process = sequencer.ProcessState{Pid: 9, Version: 2, Hook: true, StartedAt: time.Now().Add(-time.Minute)}
			}, func(t *testing.T, r Report) {
				assert.Nil(t, r.Node)
				assert.Equal(t, &Hook{2, "v2", 9, r.Hook.StartedAt}, r.Hook)
				assert.Contains(t, r.View(0), ": running the hook before the upgrade for ")
				assert.Contains(t, r.View(0), "\nhook      before v2: pid 9, for 1 min 0 s\n")
			}},
		} {
			test.run(t)
		}
	})
}

func TestReportNamesAHookThatIsToCome(t *testing.T) {
	in(t, func(t *testing.T) {
		s := newStatus(running(), sovereign.Readiness{Leads: true})
		for migration, want := range map[string]string{"": "v2, with a hook, after height 220", "/opt/v2/migrate": "v2, with a hook and a migration, after height 220"} {
			s.Plan.Versions[2].Before, s.Plan.Versions[2].Migration = []string{"/opt/hook", "secret"}, migration
			r := s.Report(t.Context())
			assert.True(t, r.NextUpgrade.Hook)
			assert.Contains(t, r.View(0), want)
			assert.NotContains(t, asJSON(t, s), "secret")
		}
	})
}

func TestReportOfALastVersionThatEnds(t *testing.T) {
	in(t, func(t *testing.T) {
		state := running()
		state.Record.VersionIndex, state.Process.Version = 2, 2
		s := newStatus(state, sovereign.Readiness{Leads: true})
		s.Plan.Versions[2].Stop = 300
		u := s.Report(t.Context()).NextUpgrade
		assert.Nil(t, u.VersionIndex)
		assert.Empty(t, u.Version)
		assert.EqualValues(t, 300, u.StopHeight)
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
		golden(t, "running.txt", newStatus(running(), sovereign.Readiness{Why: "the node is syncing: DA height 5 of 9"}).Report(t.Context()).View(0))
		golden(t, "preparing.txt", New(Options{Plan: threeVersions()}).Report(t.Context()).View(0))
		for _, width := range []int{40, 60, 80} {
			view := newStatus(running(), sovereign.Readiness{Synced: true}).Report(t.Context()).View(width)
			golden(t, fmt.Sprintf("running-%d.txt", width), view)
		}
		asking := running()
		asking.Phase, asking.Process.Asked, asking.Stopping, asking.Height, asking.Rate = sequencer.PhaseAsking, true, true, nil, 0
		golden(t, "asking.txt", newStatus(asking, sovereign.Readiness{Leads: true}).Report(t.Context()).View(0))
	})
}

// No line may be wider than the terminal, which would break it anywhere, and move all below it.
func TestViewIsNoWiderThanTheTerminal(t *testing.T) {
	in(t, func(t *testing.T) {
		state := running()
		state.Failure.What = strings.Repeat("/a/long/path", 30) + strings.Repeat(" 世界", 40)
		s := newStatus(state, sovereign.Readiness{Why: strings.Repeat("世", 50)})
		s.host, s.Plan.Versions[2].Name = strings.Repeat("h", 63), strings.Repeat("界", 64)
		s.Plan.Versions[2].Start, s.Plan.Versions[1].Stop = 1<<63, 1<<63-1
		r := s.Report(t.Context())
		for width := minWidth; width < 250; width++ {
			view := r.View(width)
			for line := range strings.Lines(view) {
				assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), width, line)
			}
			words := strings.Join(strings.Fields(view), "")
			assert.Contains(t, words, strings.Repeat("/a/long/path", 30)+strings.Repeat("世界", 40), "nothing is lost")
			assert.Contains(t, view, "VERSION")
			assert.Contains(t, view, "STATE")
		}
		assert.Equal(t, r.View(minWidth), r.View(1), "no narrower one is drawn for")
	})
}

// A name in the config, or the words of a failure, must not move the operator's cursor.
func TestViewObeysNoName(t *testing.T) {
	in(t, func(t *testing.T) {
		state := running()
		state.Failure.What = "\x1b[2J\r\x9b31m gone"
		s := newStatus(state, sovereign.Readiness{Why: "\x1b]0;title\a"})
		s.Plan.Versions[2].Name = "v2\x1b[31m\nALIVE\u202e"
		view := s.Report(t.Context()).View(0)
		for _, r := range view {
			assert.True(t, r == '\n' || unicode.IsGraphic(r), "%q", r)
		}
		assert.Contains(t, view, `v2\u001b[31m ALIVE\u202e`)
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
		{0, 1<<64 - 1, 0, "100 %"}, // its number of blocks is 2^64
		{0, 1<<64 - 1, 1<<64 - 1, "0 %"},
		{1<<64 - 1, 1<<64 - 1, 0, "100 %"},
		{7, 0, 1<<64 - 1, "0 %"},
		{5, 5, 1, "0 %"},
		{5, 5, 0, "100 %"},
	} {
		line := bar(test.start, test.stop, test.remaining, barWidth)
		assert.True(t, strings.HasSuffix(line, "] "+test.percent), line)
		assert.Len(t, strings.TrimSuffix(line, " "+test.percent), barWidth+2)
	}
}

func TestDurationsAreForPeople(t *testing.T) {
	for seconds, want := range map[float64]string{
		0: "0.0 s", 0.04: "0.0 s", 9.99: "10.0 s", 59.9: "59 s", 60: "1 min 0 s", 3599: "59 min 59 s", 3600: "1 h 0 min", 200000: "2 days 7 h", -1e300: "0.0 s", 1e300: "11574 days 1 h",
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
		for _, family := range newStatus(running(), sovereign.Readiness{}).moment(t.Context()).metricTable() {
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
		text := string(New(Options{Plan: threeVersions(), Orphans: func() uint64 { return 0 }}).metrics(t.Context()))
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

// failedRun is a run before the present one.
func failedRun() *checkpoint.LastRun {
	began := time.Date(1999, 12, 31, 22, 0, 0, 0, time.UTC)
	ended, code := began.Add(time.Hour), 101
	return &checkpoint.LastRun{
		BeganAt: began, Pid: 1, Host: "node-7", EndedAt: &ended, ExitCode: &code,
		Failure: &checkpoint.LastWords{Cause: "state_damaged", What: "version 1: its node exited 101", Safe: "the stamp is correct", Next: "restore the state", Text: "what the node wrote"},
	}
}

func TestRunBeforeIsShownIfItDidNotEndWell(t *testing.T) {
	in(t, func(t *testing.T) {
		s := newStatus(running(), sovereign.Readiness{Leads: true})
		view := func(change func(r *checkpoint.LastRun)) string {
			run := failedRun()
			change(run)
			s.Follow(run)
			return s.Report(t.Context()).View(0)
		}
		assert.Contains(t, view(func(*checkpoint.LastRun) {}),
			"\nlast run  ended 1999-12-31 23:00:00 UTC with exit code 101: version 1: its node exited 101; the stamp is correct; restore the state\n")
		assert.Contains(t, view(func(r *checkpoint.LastRun) {
			r.EndedAt, r.ExitCode, r.Failure, r.Unended = nil, nil, nil, "ended without a word"
		}),
			"\nlast run  began 1999-12-31 22:00:00 UTC, ended without a word\n")
		assert.NotContains(t, view(func(r *checkpoint.LastRun) { *r.ExitCode, r.Failure = 0, nil }), "last run")
		assert.Contains(t, view(func(r *checkpoint.LastRun) { r.Failure.What = strings.Repeat("x", 9000) }), " […] ")
		s.Follow(nil)
		assert.Nil(t, s.Report(t.Context()).PreviousRun)
	})
}
