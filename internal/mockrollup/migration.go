package mockrollup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/spf13/pflag"
)

// Report is what a migration prints on stdout.
type Report struct {
	From      uint64 `json:"from_state_version"`
	To        uint64 `json:"to_state_version"`
	Height    uint64 `json:"height"`
	OldRoot   string `json:"old_state_root"`
	NewRoot   string `json:"new_state_root"`
	DryRun    bool   `json:"dry_run"`
	Resumed   bool   `json:"resumed"`
	NothingTo bool   `json:"already_migrated"`
}

// failure is a migration's error with its exit code.
type failure struct {
	error
	code int
}

type migration struct {
	cfg     Config
	config  string
	knobs   MigrationConfig
	to      uint64
	dryRun  bool
	journal *journal
	store   *store
	state   State
}

// migrateMain is the program rollup-db-migration. It does not handle signals: a stop signal kills it, maybe halfway.
func migrateMain(args []string, stdio Stdio) int {
	defer quitKills()()
	m := &migration{journal: &journal{}}
	code, err := m.parse(args, stdio)
	if errors.Is(err, errUsageShown) {
		return code
	}
	var report Report
	if err == nil {
		report, err = m.run(args)
	}
	defer m.release()
	if err != nil {
		return m.fail(err, stdio)
	}
	m.journal.exit(exitOK, m.state.Height, 0, "")
	if err := json.NewEncoder(stdio.Out).Encode(report); err != nil {
		return exitMigration
	}
	return exitOK
}

func (m *migration) parse(args []string, stdio Stdio) (int, error) {
	flags := pflag.NewFlagSet("rollup-db-migration", pflag.ContinueOnError)
	config := flags.String("rollup-config-path", "", "config `FILE` of the version to migrate to")
	dryRun := flags.Bool("dry-run", false, "report, and change nothing")
	var given MigrationConfig
	flags.BoolVar(&given.Idempotent, "idempotent", false, "succeed when run again, even after an interruption")
	flags.DurationVar(&given.Sleep, "sleep", 0, "`TIME` between the two halves of the rewrite")
	flags.IntVar(&given.Exit, "exit", 0, "fail with this `CODE` before changing anything")
	set := flags.StringArray("set", nil, "a `NAME=VALUE` that the config may require; may be repeated")
	to := flags.Uint64("to", 0, "state `VERSION` to migrate to, instead of the config's")
	if code, ok := parseArgs(flags, args, stdio); !ok {
		return code, errUsageShown
	}
	if code, ok := required(flags, stdio, "rollup-config-path"); !ok {
		return code, errUsageShown
	}
	cfg, err := LoadConfig(*config)
	if err != nil {
		return exitMigration, err
	}
	if flags.Changed("to") {
		given.To = to
	}
	m.cfg, m.config, m.dryRun = cfg, *config, *dryRun && !cfg.Mock.Migration.IgnoresDryRun
	m.knobs = merge(cfg.Mock.Migration, given, flags.Changed)
	m.to = cfg.Mock.StateVersion
	if m.knobs.To != nil {
		m.to = *m.knobs.To
	}
	if wants := m.knobs.Requires; wants != "" && !slices.Contains(append(os.Environ(), *set...), wants) {
		return exitMigration, fmt.Errorf("%s is required, as --set or in the environment", wants)
	}
	return exitOK, nil
}

// merge lets the flags override the config.
func merge(knobs, given MigrationConfig, changed func(string) bool) MigrationConfig {
	if changed("idempotent") {
		knobs.Idempotent = given.Idempotent
	}
	if changed("sleep") {
		knobs.Sleep = given.Sleep
	}
	if changed("exit") {
		knobs.Exit = given.Exit
	}
	if changed("to") {
		knobs.To = given.To
	}
	return knobs
}

func (m *migration) run(args []string) (Report, error) {
	if err := m.open(args); err != nil {
		return Report{}, err
	}
	if m.knobs.Exit != 0 {
		return Report{}, failure{errors.New("mock fault: exit"), m.knobs.Exit}
	}
	report := Report{
		From: m.state.StateVersion, To: m.to, Height: m.state.Height, OldRoot: m.state.StateRoot,
		NewRoot: m.state.StateRoot, DryRun: m.dryRun, Resumed: m.state.Migrating != nil,
	}
	done, err := m.check()
	if err != nil {
		return report, err
	}
	if done {
		report.NothingTo = true
		return report, nil
	}
	report.NewRoot = MigratedRoot(m.state.StateRoot, m.state.StateVersion, m.to)
	if m.dryRun {
		return report, nil
	}
	return report, m.rewrite(report.NewRoot)
}

// open takes the lock and reads the state. Unlike a node, it creates nothing on an empty volume, not even the folder.
func (m *migration) open(args []string) error {
	dir := m.cfg.Storage.Path
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the state %s is empty, there is nothing to migrate", dir)
	}
	journal, err := openJournal(m.cfg.journalDir(), m.cfg.Mock.Journal, Entry{Kind: KindMigration, Label: m.cfg.Mock.Label})
	if err != nil {
		return err
	}
	m.journal = journal
	m.journal.add(Entry{Event: EventStart, Args: args})
	if m.store, err = openStore(dir, m.cfg.Mock.Fsync); err != nil {
		return err
	}
	m.state, err = ReadState(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the state %s is empty, there is nothing to migrate", dir)
	}
	if err == nil && (m.state.Damaged != "" || m.store.committing() != "") {
		return errors.New(damageText) //nolint:staticcheck // the words are those of a real node
	}
	return err
}

// check reports whether the work is already done. It ignores the height: a migration that runs too early succeeds, as a
// real one does.
func (m *migration) check() (done bool, err error) {
	disk := m.state.StateVersion
	migrated := disk == m.to && m.state.Format == m.cfg.Mock.Format
	switch half := m.state.Migrating; {
	case half != nil && half.To != m.to:
		return false, fmt.Errorf("the state is half migrated to state_version %d, not to %d", half.To, m.to)
	case half != nil && !m.knobs.Idempotent:
		return false, fmt.Errorf("the state is half migrated to state_version %d", half.To)
	case migrated && m.knobs.Idempotent:
		return true, nil
	case migrated:
		return false, fmt.Errorf("the state is at state_version %d already", disk)
	case disk > m.to:
		return false, fmt.Errorf("the state is at state_version %d, beyond %d", disk, m.to)
	}
	return false, nil
}

// rewrite works in place, in two durable steps. A kill in between leaves a state that no node opens.
func (m *migration) rewrite(root string) error {
	from := m.state.StateVersion
	m.state.Migrating = &HalfMigration{From: from, To: m.to}
	if err := m.store.commit(m.state); err != nil {
		return err
	}
	time.Sleep(m.knobs.Sleep)
	if m.knobs.Worker > 0 {
		return m.leaveWorker(root)
	}
	return m.complete(root)
}

// complete is the second step.
func (m *migration) complete(root string) error {
	from := m.state.StateVersion
	m.state.Migrating = nil
	m.state.StateVersion, m.state.StateRoot, m.state.WrittenBy = m.to, root, m.cfg.Mock.Label
	m.state.Format = m.cfg.Mock.Format
	m.state.Migrations = append(m.state.Migrations, MigrationRecord{
		Height: m.state.Height, From: from, To: m.to, By: m.cfg.Mock.Label,
	})
	return m.store.commit(m.state)
}

func (m *migration) fail(err error, stdio Stdio) int {
	code, reason := exitMigration, err.Error()
	var chosen failure
	if errors.As(err, &chosen) {
		code = chosen.code
	}
	if errors.Is(err, errLocked) {
		reason = errLocked.Error()
	}
	fmt.Fprintf(stdio.Err, "rollup-db-migration failed: %s\n", err)
	m.journal.add(Entry{Event: EventRefused, Height: m.state.Height, Reason: reason})
	m.journal.exit(code, m.state.Height, 0, reason)
	return code
}

func (m *migration) release() {
	if m.store != nil {
		m.store.close()
	}
	m.journal.close()
}
