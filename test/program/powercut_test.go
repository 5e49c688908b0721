package program

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/sequencer/checkpoint"
)

var (
	powerCuts    = flag.Int("power-cuts", 8, "power cuts on each kind of file system")
	powerCutSeed = flag.Uint64("power-cut-seed", 0, "repeat the moments of a run; 0 for others each time")
)

// The volume loses its power again and again, with the checkpoint and the state on it, and all that was not synced:
// what the sequence arrives at is what it would have been.
func TestPowerIsCutAtAnyMomentAndTheChainBecomesTheSame(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			seed := *powerCutSeed
			if seed == 0 {
				seed = uint64(time.Now().UnixNano())
			}
			t.Logf("-power-cut-seed %d", seed)
			ownMounts(t)
			cuts := &cutCounts{}
			random := rand.New(rand.NewPCG(seed, 0))
			for cuts.rounds < *powerCuts {
				liveThroughPowerCuts(t, kind, random, cuts)
			}
			t.Logf("%s: %s", kind, cuts)
		})
	}
}

// cutCounts is what happened over all cuts.
type cutCounts struct {
	rounds, chains int
	// inWrite fell while there was a temporary file beside the checkpoint or the stamp; old brought an older stamp back
	// than could be read before the cut; leftovers are the temporary files that the disk still had afterwards.
	inWrite, old, leftovers int
}

func (n *cutCounts) String() string {
	return fmt.Sprintf("%d power cuts in %d chains: %d in a write of ours, %d brought the old stamp back, %d temporary files were left, 0 differences",
		n.rounds, n.chains, n.inWrite, n.old, n.leftovers)
}

// syncedChain is a short chain by the clock, on a disk of its own, whose nodes sync what they commit.
func syncedChain(t *testing.T, kind string) (*chain, *disk) {
	t.Helper()
	const stop = 10
	c := newChain(t, version{stop: stop}, version{stop: 2 * stop, migrates: true}, version{stop: 3 * stop, migrates: true}, version{stop: 4 * stop})
	c.undo = "auto"
	var d *disk
	if kind != "" {
		d = newDisk(t, kind, filepath.Dir(c.checkpoint))
	}
	for i := range c.versions {
		mock := &c.versions[i].node.Mock
		mock.DA = mockrollup.DAConfig{File: filepath.Join(c.dir, "da.json"), BlockTime: 20 * time.Millisecond, Finality: 2}
		// What is not synced is gone: a journal would show half of it.
		mock.Fsync, mock.Journal = true, "off"
		mock.Migration.Idempotent, mock.Migration.Sleep = true, 20*time.Millisecond
		c.writeConfig(i)
	}
	return c, d
}

// toTheEnd is the last life, in which nothing happens.
func toTheEnd(name string) phase {
	return phase{
		name: name, do: start(), exit: exits(0), trace: []string{anything},
		checkpoint: "3 finished 0@10 1@20 2@30 3@40", state: "40 version 2 migrated@10 migrated@20",
		// A cut right after a start may leave an empty record of that run; one right after an undo point was put back, a
		// checkpoint that is ahead of the stamp.
		allows: []string{"interrupted migration is run again", "migration was interrupted", "undo point put back", "checkpoint corrected", unendedEvent, "record of the last run not readable"},
		events: []event{on("sequence finished", "version=3")},
	}
}

// liveThroughPowerCuts takes one chain to its end, and compares it with one that nothing happened to.
func liveThroughPowerCuts(t *testing.T, kind string, random *rand.Rand, cuts *cutCounts) {
	t.Helper()
	c, d := syncedChain(t, kind)
	seen := &durable{}
	for i := 0; cuts.rounds < *powerCuts; i++ {
		c.phase = fmt.Sprintf("chain %d, power cut %d", cuts.chains, i)
		if !liveUntilPowerCut(c, d, random, cuts, seen) {
			break
		}
	}
	c.run(toTheEnd("to the end"))
	cuts.chains++
	have, err := mockrollup.ReadState(c.state)
	require.NoError(t, err)

	calm, _ := syncedChain(t, "")
	require.NoError(t, os.Link(filepath.Join(c.dir, "da.json"), filepath.Join(calm.dir, "da.json")))
	calm.run(toTheEnd("undisturbed"))
	want, err := mockrollup.ReadState(calm.state)
	require.NoError(t, err)
	require.Equal(t, want, have, "the whole state: root, history, migrations")
	d.unmount()
}

// liveUntilPowerCut is one life of the program; false if it ended before the moment came.
func liveUntilPowerCut(c *chain, d *disk, random *rand.Rand, cuts *cutCounts, seen *durable) bool {
	c.t.Helper()
	moment := chooseMoment(c, random)
	idle := d.keepBusy()
	c.start()
	cut := moment.await(c)
	temp, before := len(c.leftoverFiles()), readText(c.stampFile())
	d.cutPower()
	idle()
	_ = c.program.cmd.Process.Kill()
	<-c.program.done
	c.await("the node to be dead too", func() bool { return len(c.processes()) == 0 })
	if !cut {
		require.Zero(c.t, c.program.code(), "%s\n%s", c.phase, c.program.log.text())
	}
	log := c.program.log
	c.program = nil
	d.powerUp()
	seen.check(c, log)
	if cut {
		cuts.rounds++
		cuts.count(c, before, temp)
	}
	return cut
}

func (n *cutCounts) count(c *chain, before string, temp int) {
	if temp > 0 {
		n.inWrite++
	}
	n.leftovers += len(c.leftoverFiles())
	earlier, err := checkpoint.ParseStamp([]byte(before))
	if err != nil {
		return // there was none yet
	}
	found, err := checkpoint.Read("", c.state)
	require.NoError(c.t, err)
	if found.Stamp == nil || found.Stamp.UpdatedAt.Before(earlier.UpdatedAt) {
		n.old++
	}
}

// durable is what the log has said to be done, or an earlier power cut has left: it must never be lost.
type durable struct {
	version int
	height  uint64
	records int
}

// check looks at the volume after the power is back.
func (s *durable) check(c *chain, log *logBook) {
	c.t.Helper()
	for _, line := range log.all() {
		// A migration that was cut short is undone.
		if version, _ := strconv.Atoi(line.text("version")); line.text("msg") == "version started" {
			s.version, s.records = max(s.version, version), max(s.records, min(version, 2)) // versions 1 and 2 have a migration
		}
	}
	found, err := checkpoint.Read(c.checkpoint, c.state)
	require.NoError(c.t, err, "%s: a power cut tears neither the checkpoint nor the stamp", c.phase)
	if found.Stamp == nil {
		require.Zero(c.t, *s, "%s: the stamp is gone", c.phase)
		return
	}
	state, err := mockrollup.ReadState(c.state)
	if !errors.Is(err, os.ErrNotExist) || s.height > 0 {
		require.NoError(c.t, err, c.phase)
	}
	at := found.Stamp.VersionIndex
	switch {
	case at < s.version, state.Height < s.height, len(state.Migrations) < s.records:
		c.fatalf("something durable is lost: %+v, then %s, %s", *s, c.stampInWords(), c.stateInWords())
	case at > 0 && state.Height < c.versions[at].start-1:
		c.fatalf("the stamp is ahead of the state: %s, %s", c.stampInWords(), c.stateInWords())
	}
	*s = durable{at, state.Height, len(state.Migrations)}
	if found.Stamp.Migration == checkpoint.MigrationBegun { // the next start undoes it
		s.version, s.records = at-1, at-1
	}
}

// moment is when the power is cut: when the first of these comes.
type moment struct {
	after time.Duration // since the start, or since the event
	event event
	// write is what happens to a file of the checkpoint or the stamp, as inotify(7) names it, for the nth time.
	write uint32
	nth   int
	watch int
}

// chooseMoment takes one of three kinds: some time, some line of log, or some step of a write of ours.
func chooseMoment(c *chain, random *rand.Rand) *moment {
	c.t.Helper()
	m := &moment{after: time.Duration(random.Int64N(int64(250 * time.Millisecond)))}
	switch random.IntN(4) {
	case 1:
		message := []string{"version started", "version completed", "migration started", "migration finished", "height known"}[random.IntN(5)]
		m.event, m.after = on(message), time.Duration(random.Int64N(int64(4*time.Millisecond)))
	case 2, 3:
		m.write = []uint32{unix.IN_CREATE, unix.IN_MODIFY, unix.IN_MOVED_TO}[random.IntN(3)]
		m.nth, m.after = 1+random.IntN(3), max(0, time.Duration(random.Int64N(int64(400*time.Microsecond)))-200*time.Microsecond)
		m.arm(c)
	}
	return m
}

func (m *moment) arm(c *chain) {
	c.t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	require.NoError(c.t, err)
	_, err = unix.InotifyAddWatch(fd, filepath.Dir(c.checkpoint), m.write)
	require.NoError(c.t, err)
	if _, err := unix.InotifyAddWatch(fd, c.state, m.write); !errors.Is(err, os.ErrNotExist) { // it comes with the first stamp
		require.NoError(c.t, err)
	}
	m.watch = fd
}

// await returns true when the moment has come, false if the program ended before.
func (m *moment) await(c *chain) bool {
	c.t.Helper()
	come := func() bool { return true }
	switch {
	case m.event != nil:
		come = func() bool { return c.program.log.has(m.event) }
	case m.write != 0:
		defer unix.Close(m.watch)
		come = m.written
	}
	for end := time.Now().Add(deadline); !come(); {
		if c.program.ended() {
			return false
		}
		if time.Now().After(end) {
			c.fatalf("the program neither ends nor comes to the moment %+v", *m)
		}
		if m.write == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	for end := time.Now().Add(m.after); time.Now().Before(end) && !c.program.ended(); {
		time.Sleep(min(time.Until(end), time.Millisecond))
	}
	return !c.program.ended()
}

// written waits for a moment and reports whether the nth event has come.
func (m *moment) written() bool {
	poll := []unix.PollFd{{Fd: int32(m.watch), Events: unix.POLLIN}}
	if n, _ := unix.Poll(poll, 5); n <= 0 {
		return false
	}
	buffer := make([]byte, 4096)
	n, err := unix.Read(m.watch, buffer)
	if err != nil {
		return false
	}
	// The lock and the files of the node are there, too; a temporary file has the name of the file in its own.
	count := func(name string) int { return bytes.Count(buffer[:n], []byte(name)) }
	m.nth -= count("checkpoint.json") - count("checkpoint.json.lock") - count("checkpoint.json.last-run") + count("rollup-version.json")
	return m.nth <= 0
}

// has reports whether such a line was logged.
func (b *logBook) has(e event) bool {
	for _, line := range b.all() {
		if line.matches(e) {
			return true
		}
	}
	return false
}

// What the cut takes away: without this test the one above could pass over a disk that loses nothing.
func TestPowerCutLosesWhatIsNotSynced(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ownMounts(t)
			dir := t.TempDir()
			d := newDisk(t, kind, dir)
			path := filepath.Join(dir, "checkpoint.json")
			after := func(save func(*checkpoint.Store)) string {
				store, err := checkpoint.Open(path, "")
				require.NoError(t, err)
				require.NoError(t, store.SaveCheckpoint(checkpoint.Checkpoint{VersionIndex: 0, BinaryPath: "/rollup"}))
				save(store)
				d.cutPower()
				require.NoError(t, store.Close())
				d.powerUp()
				found, err := checkpoint.Read(path, "")
				if err != nil {
					return "torn"
				}
				return strconv.Itoa(found.Checkpoint.VersionIndex)
			}
			for range 10 {
				assert.Equal(t, "1", after(func(store *checkpoint.Store) {
					require.NoError(t, store.SaveCheckpoint(checkpoint.Checkpoint{VersionIndex: 1, BinaryPath: "/rollup"}))
				}), "Store keeps its promise")
			}
			assert.Equal(t, "0", after(func(*checkpoint.Store) {
				store, err := checkpoint.Open("", filepath.Join(dir, "new", "state"))
				require.NoError(t, err)
				require.NoError(t, store.SaveStamp(checkpoint.Stamp{Name: "v0"}))
			}))
			found, err := checkpoint.Read("", filepath.Join(dir, "new", "state"))
			require.NoError(t, err)
			assert.NotNil(t, found.Stamp, "nor is a stamp lost, or the directory that was made for it")
			assert.Equal(t, "0", after(func(*checkpoint.Store) { replaceUnsynced(t, path) }), "without any fsync the new one is lost")
			assert.Equal(t, "torn", after(func(*checkpoint.Store) {
				replaceUnsynced(t, path)
				syncPath(t, dir)
			}), "without that of the file it is torn")
			assert.Equal(t, "torn", after(func(*checkpoint.Store) {
				require.NoError(t, os.Truncate(path, 0))
				syncPath(t, path)
				require.NoError(t, os.WriteFile(path, encoded(t), 0o644))
			}), "in place it is torn")
		})
	}
}

func encoded(t *testing.T) []byte {
	t.Helper()
	text, err := checkpoint.Encode(checkpoint.Checkpoint{VersionIndex: 1, BinaryPath: "/rollup"})
	require.NoError(t, err)
	return text
}

// replaceUnsynced is what a careless program does.
func replaceUnsynced(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", encoded(t), 0o644))
	require.NoError(t, os.Rename(path+".new", path))
}

func syncPath(t *testing.T, path string) {
	t.Helper()
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, file.Sync())
}
