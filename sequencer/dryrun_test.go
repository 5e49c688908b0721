package sequencer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/checkpoint"
)

const m1Dry = m1 + " --deep --dry-run"

// tries is a world at version 0, in the middle of its heights, whose migration to version 1 is about to be tried.
func tries(t *testing.T, acts ...act) (*world, *memoryUndo) {
	t.Helper()
	w := worldAt(t, stamped(0), acts...)
	w.plan.Versions[1].MigrationArgs, w.plan.Versions[1].MigrationEnv = []string{"--deep"}, []string{"BATCH=9"}
	w.store.checkpoint.Height = new(uint64(7))
	return w, w.withUndo(nil)
}

// dryRun is run for a dry run. It must leave the record as it was.
func (w *world) dryRun() (DryRunReport, error) {
	w.t.Helper()
	stamp, was := *w.store.stamp, w.store.checkpoint.Clone()
	report, err := DryRun(w.prepared())
	w.over()
	assert.True(w.t, sameButTime(stamp, *w.store.stamp), "the stamp is %+v, and was %+v", w.store.stamp, stamp)
	is := w.store.checkpoint.Clone()
	is.UpdatedAt, was.UpdatedAt = time.Time{}, time.Time{}
	assert.Equal(w.t, was, is, "the checkpoint is what it was")
	return report, err
}

// refusesDryRun is dryRun for one that ends with 78 before anything is started.
func (w *world) refusesDryRun() *Failure {
	w.t.Helper()
	_, err := DryRun(w.prepared())
	w.over()
	var f *Failure
	require.ErrorAs(w.t, err, &f)
	assert.Equal(w.t, CodeMismatch, f.Code, f.Error())
	assert.NotEmpty(w.t, f.ToDo(), f.What)
	assert.Equal(w.t, untouched, f.Safe)
	return f
}

// reports writes a report and exits with the code.
func reports(text string, code int) func(*fakeProcess) {
	return func(p *fakeProcess) {
		assert.Contains(p.w.t, p.command.Env, "BATCH=9")
		_, err := fmt.Fprintln(p.command.Stdout, text)
		assert.NoError(p.w.t, err)
		p.exits(code)
	}
}

func TestDryRunWorksOnAnUndoPointThatIsPutBackWhateverItsExit(t *testing.T) {
	for _, code := range []int{0, 3} {
		lives(t, func(t *testing.T) {
			w, u := tries(t)
			w.acts = append(w.acts, act{m1Dry, func(p *fakeProcess) {
				assert.Equal(t, 1, u.made)
				assert.Nil(t, u.point.Height, "nobody was asked")
				assert.Equal(t, "v1.dry-run", u.point.To.Name)
				assert.Equal(t, "made", w.store.stamp.UndoPoint)
				assert.Equal(t, "v1", w.store.stamp.Name)
				assert.Equal(t, 0, w.store.checkpoint.VersionIndex, "the checkpoint does not follow")
				time.Sleep(90 * time.Second)
				reports("12 accounts", code)(p)
			}})
			r, err := w.dryRun()
			require.NoError(t, err)
			assert.Equal(t, DryRunReport{
				Version: 1, Exit: Exit{Code: code}, Took: 90 * time.Second, Text: "12 accounts\n", Method: checkpoint.UndoCopy, Aside: "/data/state.failed-v1.dry-run",
			}, r)
			assert.Equal(t, 1, u.putBack)
			again := w.again(act{askV0, answers(7)}, act{v0, stoppedAt(8)})
			again.withUndo(nil)
			require.NoError(t, again.run(), "version 0 continues")
		})
	}
}

func TestDryRunThatWasKilledIsPutBackByTheNextStart(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, u := tries(t)
		was := w.store.checkpoint.Clone()
		u.putBackError = errors.New("killed")
		w.acts = append(w.acts, act{m1Dry, exits(0)})
		_, err := DryRun(w.prepared())
		var f *Failure
		require.ErrorAs(t, err, &f)
		assert.Equal(t, CodeCheckpointNotWritable, f.Code)
		assert.Contains(t, f.Next, "the next start puts the undo point back")
		assert.Equal(t, begun, w.store.stamp.Migration)

		refused := w.again()
		refused.withUndo(u.point)
		assert.Contains(t, refused.refusesDryRun().Next, "put the undo point back")

		again := w.again(act{askV0, answers(7)}, act{v0, stoppedAt(8)})
		after := again.withUndo(u.point)
		require.NoError(t, again.run())
		assert.Equal(t, 1, after.putBack)
		assert.Equal(t, "v0", w.store.stamp.Name)
		assert.Equal(t, was.History, again.store.checkpoint.History)
	})
}

// The undo point may be where the next start does not look. The migration must not run for real then.
func TestDryRunThatWasKilledIsNoMigrationToRunAgain(t *testing.T) {
	for _, policy := range []bool{false, true} {
		lives(t, func(t *testing.T) {
			w := interrupted(t)
			w.store.stamp.DryRun, w.store.stamp.UndoPoint, w.store.stamp.Entered = true, "elsewhere", true
			if policy {
				w.plan.Versions[1].OnInterrupted = Halt
			}
			w.withUndo(nil)
			assert.Contains(t, w.failsBecause(MigrationInterrupted).Next, "--undo-dir")
		})
	}
}

func TestDryRunIsRefused(t *testing.T) {
	for _, test := range []struct {
		says   string
		change func(w *world, u *memoryUndo)
	}{
		{"there is no state in /data/state", func(w *world, _ *memoryUndo) {
			w.store.state, w.store.stamp, w.store.checkpoint = checkpoint.StateNone, nil, nil
		}},
		{"a migration of version 1 was begun", func(w *world, _ *memoryUndo) { w.store.stamp = stamped(1, begun) }},
		{"has no migration", func(w *world, _ *memoryUndo) { w.plan.Versions[1].Migration = "" }},
		{"the last version of manager.json", func(w *world, _ *memoryUndo) { w.plan.Versions = w.plan.Versions[:1] }},
		{"no node config says where it is", func(w *world, _ *memoryUndo) { w.options.Undo = nil }},
		{"none can be made here: no reflinks", func(_ *world, u *memoryUndo) { u.makeError = &NoUndoPointError{Why: "no reflinks"} }},
		{"would replace the undo point /data/state.before-v1", func(w *world, u *memoryUndo) { u.point = undoPointBefore(w.plan, 1) }},
		{"does not match", func(w *world, _ *memoryUndo) {
			w.files.verify = func(_ context.Context, i int, _ bool) []Finding {
				if i != 1 {
					return nil
				}
				return []Finding{{1, SeverityError, "/m1 does not match the manifest", ""}}
			}
		}},
	} {
		t.Run(test.says, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w, u := tries(t)
				test.change(w, u)
				f := w.refusesDryRun()
				assert.Contains(t, f.Error(), test.says)
				assert.Zero(t, u.made)
			})
		})
	}
}

func TestDryRunOfAProgramThatCannotBeStartedIsPutBack(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, u := tries(t)
		w.startError = &StartError{Code: CodeNotFound, Err: syscall.ENOENT}
		_, err := w.dryRun()
		var f *Failure
		require.ErrorAs(t, err, &f)
		assert.Equal(t, CodeNotFound, f.Code)
		assert.Equal(t, 1, u.putBack)
		assert.Contains(t, f.Safe, "the state is what it was")
	})
}

// Its stamp may be on disk or not.
func TestDryRunWhoseStampCannotBeWrittenIsPutBack(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, u := tries(t)
		w.store.failStamp = failing(1)
		_, err := w.dryRun()
		require.ErrorIs(t, err, errFull)
		assert.Equal(t, 1, u.putBack)
	})
}

func TestStopDuringADryRunWaitsForItsEnd(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, u := tries(t, act{m1Dry, then(syscall.SIGTERM, reports("done", 0))})
		r, err := w.dryRun()
		require.NoError(t, err)
		assert.Equal(t, "done\n", r.Text)
		assert.Equal(t, 1, u.putBack)
	})
}

func TestStopDuringTheCopyForADryRunStartsNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, u := tries(t)
		u.takes = time.Hour
		w.options.Observe = func(s State) {
			if s.Copying != nil && !s.Stopping && len(w.signals) == 0 {
				w.signals <- syscall.SIGTERM
			}
		}
		r, err := w.dryRun()
		require.NoError(t, err)
		assert.Zero(t, r.Version)
		assert.Zero(t, u.putBack)
	})
}

func TestDryRunThatLeavesProcessesIsPutBackByTheNextStart(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, u := tries(t, act{m1Dry, exits(0)})
		w.options.LeftoverTimeout, w.outlive = time.Minute, 1
		over := make(chan struct{})
		w.leaves = func(int) func(*fakeSweep) { return func(*fakeSweep) { <-over } }
		_, err := DryRun(w.prepared())
		var f *Failure
		require.ErrorAs(t, err, &f)
		assert.Equal(t, WorkersLeft, f.Cause)
		assert.Contains(t, f.Safe, "whole, in the undo point /data/state.before-v1.dry-run")
		assert.Zero(t, u.putBack)
		assert.True(t, w.store.stamp.DryRun)
		close(over)
	})
}

func TestDryRunThatLeadsToAnotherStateIsNoticed(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, u := tries(t)
		w.acts = append(w.acts, act{m1Dry, func(p *fakeProcess) {
			w.files.storage = func(string) (string, error) { return "/data/new", nil }
			p.exits(0)
		}})
		_, err := w.dryRun()
		require.ErrorContains(t, err, "leads to the state in /data/new now")
		assert.Equal(t, 1, u.putBack)
	})
}

func TestOfALongReportTheEndIsKept(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, _ := tries(t, act{m1Dry, reports(strings.Repeat("x", tailSize)+"end", 0)})
		r, err := w.dryRun()
		require.NoError(t, err)
		assert.Len(t, r.Text, tailSize)
		assert.True(t, strings.HasSuffix(r.Text, "end\n"))
	})
}
