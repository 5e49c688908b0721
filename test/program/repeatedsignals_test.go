package program

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// count is how many lines of the log match.
func (b *logBook) count(e event) (n int) {
	for _, line := range b.all() {
		if line.matches(e) {
			line.expected = true
			n++
		}
	}
	return n
}

// timeOf is when the first such line was written.
func (c *chain) timeOf(e event) time.Time {
	c.t.Helper()
	for _, line := range c.program.log.all() {
		if line.matches(e) {
			at, err := time.Parse(time.RFC3339Nano, line.text("time"))
			require.NoError(c.t, err)
			return at
		}
	}
	c.fatalf("the log has no %v", e)
	return time.Time{}
}

// Nomad, 'docker stop' twice, and systemd with podman send two stop signals for one stop.
func TestTwoStopSignalsWithinSecondsAreOneForAMigration(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	g := gatedMigration(c, 1)
	var held *waiting
	notInterrupted := on("the migration is not interrupted", "version=1")
	c.run(
		phase{
			name: "in the migration", do: do(heights(13, 13), start(), func(*chain) { held = g.await() }),
			events: []event{on("migration started", "version=1")}, trace: upgraded[:3],
		},
		phase{name: "two at once", do: func(c *chain) {
			for n := range 3 {
				send(syscall.SIGTERM)(c)
				c.await("the signal to be seen", func() bool { return c.program.log.count(notInterrupted) > n })
			}
			assert.Zero(t, c.program.log.count(on("signal forwarded")))
		}, events: []event{on("stop requested"), notInterrupted}, stamp: "1 from 11 to 20 migrating"},
		phase{
			name: "the migration completes", do: func(*chain) { held.pass() }, exit: exits(0),
			events: []event{on("migration finished", "exit_code=0"), on("stopped")}, trace: upgraded[3:5],
			stamp: "1 from 11 to 20 migrated", state: "10 version 1 migrated@10",
		},
	)
}

func TestStopSignalTenSecondsAfterTheFirstReachesTheMigration(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	g := gatedMigration(c, 1)
	forwarded := on("signal forwarded", "signal=SIGTERM", "version=1")
	c.run(
		phase{
			name: "in the migration", do: do(heights(13, 13), start(), func(*chain) { g.await() }),
			events: []event{on("migration started", "version=1")}, trace: upgraded[:3],
		},
		phase{
			name: "again and again", do: func(c *chain) {
				next := time.Now()
				c.await("one of them to be passed on", func() bool {
					if !c.program.ended() && !time.Now().Before(next) {
						_ = c.program.cmd.Process.Signal(syscall.SIGTERM)
						next = next.Add(200 * time.Millisecond)
					}
					return c.program.log.count(forwarded) > 0
				})
				after := c.timeOf(forwarded).Sub(c.timeOf(on("stop requested")))
				assert.GreaterOrEqual(t, after, 10*time.Second-10*time.Millisecond) // the log's times are rounded
			},
			exit: exits(143), says: []string{"the migration of version 1 was killed by SIGTERM", "may be half migrated"}, stamp: "1 from 11 to 20 migrating",
			checkpoint: "1 migrating 0@10", state: "10 version 0", allows: []string{"the migration is not interrupted"},
		},
		phase{
			name: "restart runs it again", do: do(start(), func(*chain) { g.await().pass() }),
			events:     []event{on("interrupted migration is run again", "version=1"), on("height known", "version=1")},
			trace:      upgraded[3:],
			checkpoint: "1 running migrated 0@10", state: "13 version 1 migrated@10",
		},
	)
}

// Kept for the next node, a HUP would kill that in its start-up.
func TestSignalsThatComeDuringAMigrationDoNotReachTheNextNode(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	g := gatedMigration(c, 1)
	var held *waiting
	c.run(
		phase{
			name: "in the migration", do: do(heights(13, 13), start(), func(*chain) { held = g.await() }),
			events: []event{on("migration started", "version=1")}, trace: upgraded[:3],
		},
		phase{
			name: "HUP, USR1, USR2", do: do(send(syscall.SIGHUP), send(syscall.SIGUSR1), send(syscall.SIGUSR2), func(c *chain) {
				for _, name := range []string{"SIGHUP", "SIGUSR1", "SIGUSR2"} {
					c.await(name+" to be dropped", func() bool { return c.program.log.count(on("signal dropped while no node runs", "signal="+name)) == 1 })
				}
			}),
		},
		phase{
			name: "v1 runs", do: func(*chain) { held.pass() }, events: []event{on("height known", "version=1")}, trace: upgraded[3:],
			state: "13 version 1 migrated@10",
		},
		stopInV1(),
	)
	assert.NotContains(t, c.lastLog, `"signal":"SIGHUP","version"`)
}

// What is not recorded is run again, so that the record is tried for longer than a moment.
func TestMigrationIsRecordedWhenTheStampCannotBeWrittenForSomeSeconds(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	heldInMigration(c)
	notRecorded := on("record not written", "version=1")
	c.run(
		phase{
			name: "for some seconds", do: func(c *chain) {
				c.await("several tries", func() bool { return c.program.log.count(notRecorded) >= 4 })
				require.NoError(t, syscall.Rmdir(c.stampFile()))
			}, events: []event{on("height known", "version=1")}, trace: upgraded[5:],
			checkpoint: "1 running migrated 0@10", stamp: "1 from 11 to 20 migrated", state: "13 version 1 migrated@10",
		},
		stopInV1("record not written"),
	)
}
