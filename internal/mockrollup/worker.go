package mockrollup

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"
)

const (
	workerCommand = "worker"
	// workerLock is the descriptor of the state's lock in a worker.
	workerLock = 3
)

// leaveWorker starts the process that does the second half of the rewrite, and holds the lock of the state from now on.
func (m *migration) leaveWorker(root string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find our own program: %w", err)
	}
	worker := exec.Command(self, workerCommand, m.config, strconv.FormatUint(m.to, 10), root)
	worker.ExtraFiles = []*os.File{m.store.lock}
	worker.Stderr = os.Stderr
	if err := worker.Start(); err != nil {
		return fmt.Errorf("cannot start a worker: %w", err)
	}
	return nil
}

// workerMain is `mock-rollup worker CONFIG TO ROOT`.
func workerMain(args []string, stdio Stdio) int {
	m := &migration{journal: &journal{}}
	if err := m.work(args); err != nil {
		fmt.Fprintf(stdio.Err, "worker failed: %s\n", err)
		return exitMigration
	}
	m.journal.exit(exitOK, m.state.Height, 0, "")
	return exitOK
}

func (m *migration) work(args []string) (err error) {
	if len(args) != 3 {
		return fmt.Errorf("a worker needs three arguments, not %q", args)
	}
	if m.cfg, err = LoadConfig(args[0]); err != nil {
		return err
	}
	if m.to, err = strconv.ParseUint(args[1], 10, 64); err != nil {
		return fmt.Errorf("the state version %q is not a number", args[1])
	}
	base := Entry{Kind: KindWorker, Label: m.cfg.Mock.Label}
	if m.journal, err = openJournal(m.cfg.journalDir(), m.cfg.Mock.Journal, base); err != nil {
		return err
	}
	m.journal.add(Entry{Event: EventStart, Args: args})
	m.store = &store{dir: m.cfg.Storage.Path, fsync: m.cfg.Mock.Fsync, lock: os.NewFile(workerLock, lockFile)}
	if m.state, err = ReadState(m.store.dir); err != nil {
		return err
	}
	time.Sleep(m.cfg.Mock.Migration.Worker)
	return m.complete(args[2])
}
