package program

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// asUser has the program run as a user of its own, whose limits bind it as they do not bind root.
func (c *chain) asUser() {
	c.t.Helper()
	if os.Getuid() != 0 {
		missing(c.t, "this test needs root")
	}
	id := 200_000 + rand.IntN(100_000_000)
	c.user = &syscall.Credential{Uid: uint32(id), Gid: uint32(id)}
	require.NoError(c.t, filepath.WalkDir(c.dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil || filepath.Base(path) == "rollup" || filepath.Base(path) == "migration" {
			return err // these are links of what all tests use
		}
		return os.Lchown(path, id, id)
	}))
	require.NoError(c.t, os.Chmod(filepath.Dir(c.dir), 0o755))
}

// limitProcesses has the kernel give the program no further process or thread, until it is lifted.
func (c *chain) limitProcesses() (lift func()) {
	c.t.Helper()
	limit := func(soft string) {
		// As the same user: for another one's process root needs a capability that it may not have in a container.
		cmd := exec.Command("prlimit", "--pid", strconv.Itoa(c.program.cmd.Process.Pid), "--nproc="+soft+":")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.user}
		out, err := cmd.CombinedOutput()
		require.NoError(c.t, err, "%s", out)
	}
	limit("1")
	return func() { limit("4096") }
}

func outOfProcesses(t *testing.T) (c *chain, lift func()) {
	t.Helper()
	c = newChain(t, migratingChain()...)
	c.asUser()
	c.run(inV0())
	lift = c.limitProcesses()
	c.da.set(13, 13)
	c.awaitEvent(on("start is tried again", "version=0"))
	return c, lift
}

func TestStartWithoutAProcessLeftIsTriedAgain(t *testing.T) {
	t.Parallel()
	c, lift := outOfProcesses(t)
	c.run(
		phase{
			name: "there are processes again", do: func(*chain) { lift() }, events: []event{on("height known", "version=1")},
			trace: upgraded[1:], state: "13 version 1 migrated@10",
		},
		stopInV1(),
	)
}

func TestStartWithoutAProcessLeftEndsWith75(t *testing.T) {
	t.Parallel()
	c, _ := outOfProcesses(t)
	c.run(
		phase{
			name: "in vain", exit: exits(75), says: []string{"the node of version 0", "out of processes", "start again"},
			trace: upgraded[1:2], checkpoint: "0 running", stamp: "0 to 10",
		},
		phase{
			name: "restart", do: start(), events: []event{on("height known", "version=1")}, trace: upgraded[2:],
			state: "13 version 1 migrated@10",
		},
		stopInV1(),
	)
}
