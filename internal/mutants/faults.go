package main

// fault is one deliberate mistake. Its old text must stand exactly once in its file.
type fault struct {
	name string
	// breaks is the invariant of docs/guarantees.md.
	breaks int
	// harm is what an operator would have of it.
	harm     string
	file     string
	old, new string
}

// faults are mistakes that a maintainer could make, ordered by what they are about.
var faults = []fault{
	// When a version is complete.
	{
		"decide-within-ten-blocks", 2, "blocks below the stop height are made by the wrong version",
		"sequencer/decide.go",
		"case e.Last != nil && e.Last.Height == e.Stop && !e.ProofNeeded:",
		"case e.Last != nil && e.Last.Height+plausibleSlack >= e.Stop:",
	},
	{
		"decide-by-soft-height-before-migration", 2, "a migration rewrites a state whose last blocks are not durable",
		"sequencer/decide.go",
		"e.Last.Height == e.Stop && !e.ProofNeeded:",
		"e.Last.Height == e.Stop:",
	},
	{
		"decide-plausible-is-complete", 2, "a replica that restarts as leader ends its version early",
		"sequencer/decide.go",
		"Decision{Action: Verify, Reason:",
		"Decision{Action: Complete, Proof: ProofHeight, Reason:",
	},
	{
		"decide-complete-after-stop", 2, "a stop near the upgrade counts as the upgrade",
		"sequencer/decide.go",
		"case e.StopRequested:\n\t\treturn Decision{Action: Stopped, Reason:",
		"case e.StopRequested && (e.Last == nil || e.Last.Height < e.Stop):\n\t\treturn Decision{Action: Stopped, Reason:",
	},
	{
		"decide-any-refusal-is-proof", 2, "a state beyond the stop height is handed on as complete",
		"sequencer/decide.go",
		"e.Stop > 0 && r.Current == e.Stop:",
		"e.Stop > 0:",
	},
	{
		"decide-quoted-refusal-is-proof", 2, "a log line that quotes a refusal ends a version that runs well",
		"sequencer/decide.go",
		" || (e.Last != nil && e.Last.Height != r.Current)",
		"",
	},
	{
		"decide-verify-for-ever", 7, "a node that leaves again and again is started for ever, and nobody is told",
		"sequencer/version.go",
		"return v.tries <= allowed",
		"return v.tries <= allowed || e.Last != nil",
	},
	{
		"stop-with-the-exit-overlooked", 4, "a stop that comes with the node's exit is taken for a crash",
		"sequencer/version.go",
		"\tn.s.stopRequested() // a stop signal that came with the exit counts\n",
		"",
	},

	// What a node is started with, and what it says.
	{
		"start-height-never-asserted", 2, "a version runs on a state that ends below its start height",
		"sequencer/version.go",
		"s.complete(i, i > 0 && !s.record.Started)",
		"s.complete(i, false)",
	},
	{
		"start-height-always-asserted", 7, "each restart in mid-version is refused once before it goes on",
		"sequencer/version.go",
		"s.complete(i, i > 0 && !s.record.Started)",
		"s.complete(i, i > 0)",
	},
	{
		"stop-height-plus-one", 2, "each version makes the first block of the next one",
		"sequencer/sovereign/args.go",
		"strconv.FormatUint(stop, 10)",
		"strconv.FormatUint(stop+1, 10)",
	},
	{
		"start-refusal-off-by-one", 2, "the durable height that a refusal proves is read one too high",
		"sequencer/sovereign/refusal.go",
		"Current: start[1] - 1}",
		"Current: start[1]}",
	},
	{
		"refusal-in-colour-not-read", 7, "a node that logs in colour never proves its stop height",
		"sequencer/sovereign/refusal.go",
		"text := plain(stderr)",
		"text := string(stderr)",
	},
	{
		"stderr-not-kept", 7, "no refusal is read, and no failure quotes what the node said",
		"sequencer/version.go",
		"Stderr: io.MultiWriter(n.stderr, s.Stderr)",
		"Stderr: s.Stderr",
	},
	{
		"connection-kept-open", 7, "the node's exit waits for our idle connection",
		"sequencer/sovereign/client.go",
		"DisableKeepAlives:      true,",
		"DisableKeepAlives:      false,",
	},
	{
		"proxy-from-environment", 2, "heights are asked of a proxy, and are another node's",
		"sequencer/sovereign/client.go",
		"Proxy:                  nil,",
		"Proxy:                  http.ProxyFromEnvironment,",
	},
	{
		"stranger-believed", 2, "heights of another process on the port decide about this one",
		"sequencer/version.go",
		"if n.stranger {",
		"if n.stranger && n.assert {",
	},
	{
		"first-height-not-compared", 2, "a version that was started before runs on a state that was replaced by an older one",
		"sequencer/version.go",
		"if r.Height+1 < v.Start {",
		"if n.assert && r.Height+1 < v.Start {",
	},
	{
		"overrun-within-ten-blocks", 2, "blocks above the stop height are made by the wrong version",
		"sequencer/version.go",
		"if v.Stop > 0 && r.Height > v.Stop {",
		"if v.Stop > 0 && r.Height > v.Stop+plausibleSlack {",
	},
	{
		"overrun-only-asked-to-stop", 2, "a node that ran past its stop height and ignores SIGTERM runs on",
		"sequencer/version.go",
		"\tn.killAfter(grace)\n",
		"",
	},

	// The hand-over.
	{
		"hand-over-not-saved", 5, "after a power cut the checkpoint is one version behind the state",
		"sequencer/version.go",
		"s.record, s.arrived, s.previousProven = after, i+1, false\n",
		"s.record, s.arrived, s.previousProven = after, i+1, false\n\tif next.Migration == \"\" {\n\t\treturn nil // the note that the node has started saves it\n\t}\n",
	},
	{
		"hand-over-keeps-migration-completed", 3, "the second migration of a chain is taken for done, or the checkpoint contradicts itself",
		"sequencer/version.go",
		"after.Started, after.MigrationCompleted = false, false",
		"after.Started = false",
	},
	{
		"hand-over-keeps-started", 3, "a migration counts as begun before it was, or a start height is not asserted",
		"sequencer/version.go",
		"after.Started, after.MigrationCompleted = false, false",
		"after.MigrationCompleted = false",
	},
	{
		"hand-over-without-files", 6, "the checkpoint moves to a version whose files are gone",
		"sequencer/version.go",
		"if problems := s.Files.Check(s.Plan, i+1); len(problems) > 0 {",
		"if problems := s.Files.Check(s.Plan, i+1); len(problems) > 0 && next.Migration != \"\" {",
	},
	{
		"hand-over-of-unknown-past", 3, "a state without a checkpoint that was migrated already is migrated again",
		"sequencer/version.go",
		"if next.Migration != \"\" && i == 0 && !s.record.Started {",
		"if next.Migration != \"\" && i == 0 && s.record.BinaryPath == \"\" {",
	},
	{
		"checkpoint-goes-back", 5, "a restart begins with the old version on the new one's state",
		"sequencer/version.go",
		"proof, err := s.complete(i-1, assert)",
		"s.record.VersionIndex = i - 1\n\tif err := s.save(\"nothing else was started\"); err != nil {\n\t\treturn err\n\t}\n\tproof, err := s.complete(i-1, assert)\n\ts.record.VersionIndex = i",
	},
	{
		"migrated-state-given-to-the-version-before", 3, "the old binary diverges in silence on a migrated state",
		"sequencer/version.go",
		" && s.Plan.Versions[i].Migration == \"\" && height+1",
		" && height+1",
	},
	{
		"previous-version-runs-on-for-ever", 7, "two versions are started in turn for ever",
		"sequencer/version.go",
		" && !s.previousProven",
		"",
	},

	// Migrations.
	{
		"migration-begun-not-recorded", 3, "a migration that was killed half-way counts as never begun",
		"sequencer/migrate.go",
		"\ts.record.Started = true\n\tif err := s.save(\"the migration was not started\")",
		"\tif err := s.save(\"the migration was not started\")",
	},
	{
		"migration-recorded-before-it-ran", 3, "a migration that was killed half-way counts as completed",
		"sequencer/migrate.go",
		"exit, stderr, err := s.runMigration(i)",
		"s.record.Phase, s.record.Started, s.record.MigrationCompleted = PhaseRunning, false, true\n\tif err := s.save(\"the migration was not started\"); err != nil {\n\t\treturn err\n\t}\n\texit, stderr, err := s.runMigration(i)",
	},
	{
		"migration-completion-not-recorded", 3, "a restart before the node's first height runs a completed migration again",
		"sequencer/migrate.go",
		"recorded, swept := s.recordMigration(i), s.sweep()",
		"recorded, swept := error(nil), s.sweep()",
	},
	{
		"migration-recorded-in-one-try", 3, "a volume that is full for a second costs a completed migration",
		"sequencer/migrate.go",
		"const recordTries = 10",
		"const recordTries = 1",
	},
	{
		"migration-rerun-although-halt", 3, "a migration that does not survive a second run gets one",
		"sequencer/resume.go",
		"case v.OnInterrupted == Halt:",
		"case v.OnInterrupted == Halt && record.BinarySHA256 == \"\":",
	},
	{
		"migration-interrupted-is-skipped", 3, "a node is started on a state that is half migrated",
		"sequencer/resume.go",
		"at.Next = NextMigrateAgain",
		"at.Record.Phase, at.Record.Started, at.Record.MigrationCompleted = PhaseRunning, false, true",
	},
	{
		"migration-of-the-reference-presumed-due", 3, "coming from sov-rollup-manager, a migrated state is migrated again",
		"sequencer/resume.go",
		"case record.Phase == \"\":\n\t\treturn",
		"case record.Phase == \"\":\n\t\tat.Next, record.Phase = NextMigrate, PhaseMigrating\n\t\treturn at, nil\n\tcase record.Phase == \"\" && record.Started:\n\t\treturn",
	},
	{
		"migration-on-any-entry-of-the-history", 2, "a migration rewrites a state below the stop height",
		"sequencer/migrate.go",
		"if known && done.StopHeight == before.Stop && done.Proof != ProofHeight {",
		"if known && done.StopHeight == before.Stop {",
	},
	{
		"adopted-version-keeps-its-proof", 2, "a restored state below the stop height is migrated on the proof of the old one",
		"sequencer/adopt.go",
		"done.VersionIndex == i-1 && c.Phase != PhaseMigrating",
		"done.VersionIndex == i-1",
	},
	{
		"stop-after-the-begin-not-taken-back", 7, "a migration that never ran halts the sequence as interrupted",
		"sequencer/migrate.go",
		"\tif err := s.notBegun(); err != nil {\n\t\treturn err\n\t}\n\treturn errStopped",
		"\treturn errStopped",
	},

	// Signals.
	{
		"stop-between-versions-forgotten", 4, "an interrupted migration is begun again after the stop signal",
		"sequencer/run.go",
		"\t\tif s.stopRequested() {\n\t\t\treturn errStopped\n\t\t}\n\t\tvar err error",
		"\t\tvar err error",
	},
	{
		"stop-before-a-start-forgotten", 4, "the next version is started after the stop signal",
		"sequencer/version.go",
		"\tif s.stopRequested() {\n\t\treturn nil, errStopped\n\t}\n",
		"",
	},
	{
		"stop-kept-for-the-next-node", 4, "a stop between two versions starts the next one, only to end it",
		"sequencer/run.go",
		"\tif IsStop(sig) {\n\t\ts.requestStop(sig)\n\t\treturn\n\t}\n",
		"",
	},
	{
		"stop-not-forwarded", 4, "the node is killed by the orchestrator at the end of its patience",
		"sequencer/version.go",
		"\t\t\tn.killAfter(n.s.StopTimeout)\n\t\t}\n\t}\n\tn.forward(sig)",
		"\t\t\tn.killAfter(n.s.StopTimeout)\n\t\t}\n\t\treturn\n\t}\n\tn.forward(sig)",
	},
	{
		"stop-timeout-without-kill", 6, "a node that ignores SIGTERM never ends",
		"sequencer/version.go",
		"if n.s.StopTimeout > 0 {",
		"if n.s.StopTimeout > 0 && n.doomed != nil {",
	},
	{
		"stop-timeout-put-off", 6, "each repeated stop signal gives the node its whole time again",
		"sequencer/version.go",
		"if n.kill != nil && !due.Before(n.killDue) {",
		"if n.kill != nil && due.Before(n.killDue) {",
	},
	{
		"migration-dies-of-the-first-stop", 3, "each stop in a migration leaves the state half rewritten",
		"sequencer/migrate.go",
		"if IsStop(sig) && s.stopping {",
		"if IsStop(sig) {",
	},
	{
		"migration-survives-the-second-stop", 4, "an operator cannot end a migration that hangs",
		"sequencer/migrate.go",
		"if IsStop(sig) && s.stopping {",
		"if IsStop(sig) && s.stopping && n.kill != nil {",
	},
	{
		"signal-to-the-process-alone", 4, "a node behind a wrapper script never hears of a stop",
		"reaper/child.go",
		"err := c.kill(-c.pid, sig)",
		"err := c.kill(c.pid, sig)",
	},
	{
		"signal-not-caught", 4, "a stop signal kills the entrypoint, and with it the node, at once",
		"reaper/signals.go",
		"\t{unix.SIGURG, ",
		"\t{unix.SIGQUIT, \"the Go runtime prints its goroutines on it\"},\n\t{unix.SIGURG, ",
	},
	{
		"signal-to-a-reaped-number", 1, "a signal hits whatever process has got the number since",
		"reaper/child.go",
		"\tif c.reaped {\n\t\treturn os.ErrProcessDone\n\t}\n",
		"",
	},

	// What processes leave behind.
	{
		"next-start-without-sweep", 1, "the next node runs beside what the last one left behind",
		"sequencer/version.go",
		"\tn.collect()\n\tif err := s.sweep(); err != nil {\n\t\treturn nil, err\n\t}\n",
		"\tn.collect()\n",
	},
	{
		"sweep-error-ignored", 1, "the next node runs beside a process that cannot be ended",
		"sequencer/version.go",
		"ended, err := s.Processes.Sweep(limit)\n\tif err != nil {",
		"ended, err := s.Processes.Sweep(limit)\n\tif err != nil && s.stopping {",
	},
	{
		"migration-not-swept", 1, "the node runs beside what its migration left behind",
		"sequencer/migrate.go",
		"recorded, swept := s.recordMigration(i), s.sweep()",
		"recorded, swept := s.recordMigration(i), error(nil)",
	},
	{
		"failed-migration-not-swept", 6, "what a failed migration left behind rewrites the state further",
		"sequencer/migrate.go",
		"\t\tif err := s.sweep(); err != nil {\n\t\t\treturn err\n\t\t}\n\t\treturn s.migrationFailure",
		"\t\treturn s.migrationFailure",
	},
	{
		"sweep-never-kills", 7, "a leftover that ignores SIGTERM holds up the upgrade for ever",
		"reaper/sweep.go",
		"signals = []unix.Signal{unix.SIGKILL}",
		"signals = []unix.Signal{unix.SIGTERM}",
	},
	{
		"sweep-of-direct-children-only", 1, "a leftover's own children live on beside the next node",
		"reaper/processes.go",
		"\t\t\twalk(p.pid)\n",
		"",
	},
	{
		"orphans-not-inherited", 1, "a daemon that cut itself loose is never found",
		"reaper/reaper.go",
		"unix.PR_SET_CHILD_SUBREAPER, 1,",
		"unix.PR_SET_CHILD_SUBREAPER, 0,",
	},
	{
		"parent-death-signal-missing", 6, "the node outlives an entrypoint that was killed",
		"cmd/entrypoint/run.go",
		"if os.Getpid() != 1 {",
		"if os.Getpid() == 1 {",
	},
	{
		"parent-death-by-thread", 6, "the node is killed when the thread that started it ends",
		"reaper/start.go",
		"onStarter(func() { c, err = r.start(cmd) })",
		"c, err = r.start(cmd)",
	},

	// Exits.
	{
		"one-reaped-for-each-sigchld", 7, "zombies stay, and the exit of the node is never seen",
		"reaper/reap.go",
		"more, err := r.reapOne()\n\t\tif !more {",
		"_, err := r.reapOne()\n\t\tif true {",
	},
	{
		"start-registered-late", 7, "the exit of a process that dies at once is lost, and waited for for ever",
		"reaper/start.go",
		"p, err := os.StartProcess(cmd.Path, args, attr)",
		"r.mu.Unlock()\n\tp, err := os.StartProcess(cmd.Path, args, attr)\n\tr.mu.Lock()",
	},
	{
		"reaped-before-it-is-known", 1, "a signal can hit whatever process has got the number since",
		"reaper/reap.go",
		"c := r.children[pid]",
		"r.mu.Unlock()\n\tr.mu.Lock()\n\tc := r.children[pid]",
	},
	{
		"stderr-cut-at-the-exit", 2, "the refusal that proves the stop height is lost now and then",
		"reaper/stderr.go",
		"\t\t\tp.carryAvailable(buf)\n",
		"",
	},
	{
		"signal-death-without-128", 6, "a node that was killed ends the entrypoint with a code of its own",
		"sequencer/decide.go",
		"return 128 + int(e.Signal)",
		"return int(e.Signal)",
	},
	{
		"killed-by-the-stop-is-exit-0", 6, "a node that was killed in start-up looks as if it had stopped well",
		"sequencer/failures.go",
		"if d.Code == 0 {",
		"if d.Code == 0 || run.evidence.StopRequested {",
	},
	{
		"failure-code-not-used", 6, "an orchestrator cannot tell what needs a hand from what a restart heals",
		"cmd/entrypoint/run.go",
		"code = f.Code",
		"code = max(code, f.Code)",
	},

	// The checkpoint.
	{
		"file-not-synced", 5, "after a power cut the checkpoint is empty",
		"sequencer/store.go",
		"if err := file.CloseAtomicallyReplace(); err != nil {",
		"if err := errors.Join(file.Close(), os.Rename(file.Name(), s.path)); err != nil {",
	},
	{
		"directory-not-synced", 5, "after a power cut the checkpoint is one version behind the state",
		"sequencer/store.go",
		"return syncDir(dir)",
		"return nil",
	},
	{
		"directory-sync-error-ignored", 5, "a version is started that the checkpoint may not know after a power cut",
		"sequencer/store.go",
		"if err := d.Sync(); err != nil {",
		"if err := d.Sync(); err != nil && errors.Is(err, os.ErrPermission) {",
	},
	{
		"written-in-place", 5, "a kill in a write leaves a torn checkpoint",
		"sequencer/store.go",
		"if err := s.replace(text); err != nil {",
		"if err := os.WriteFile(s.path, text, 0o644); err != nil {",
	},
	{
		"temporary-file-elsewhere", 5, "the rename fails, or copies, where the volume is another file system",
		"sequencer/store.go",
		"renameio.WithTempDir(dir)",
		"renameio.WithTempDir(os.TempDir())",
	},
	{
		"torn-checkpoint-is-absent", 5, "a torn checkpoint starts version 0 on the state of a late one",
		"sequencer/store.go",
		"c, err = ParseCheckpoint(text)\n\tif err != nil {",
		"c, err = ParseCheckpoint(text)\n\tif err != nil {\n\t\treturn Checkpoint{}, false, nil\n\t}\n\tif err != nil {",
	},
	{
		"unreadable-checkpoint-is-absent", 5, "a read error starts version 0 on the state of a late one",
		"sequencer/run.go",
		"c, found, err := s.Store.Load()\n",
		"c, found, err := s.Store.Load()\n\tif err != nil && !errors.Is(err, ErrNoFile) {\n\t\ts.Log.Warn(\"checkpoint not read\", slog.String(\"error\", err.Error()))\n\t\terr = nil\n\t}\n",
	},
	{
		"empty-state-accepted", 2, "a late version commits a genesis of its own on an empty volume",
		"sequencer/run.go",
		"if !empty || (now == 0",
		"if !empty || s.record.Started || (now == 0",
	},
	{
		"lock-shared", 1, "two entrypoints on one volume run two nodes on one state",
		"sequencer/store.go",
		"unix.LOCK_EX|unix.LOCK_NB",
		"unix.LOCK_SH|unix.LOCK_NB",
	},
	{
		"lock-not-inherited", 1, "a second entrypoint starts beside the node of one that was killed",
		"cmd/entrypoint/run.go",
		"if ps.lock != nil {",
		"if ps.lock != nil && len(c.Env) > 0 {",
	},
}
