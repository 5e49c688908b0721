// Package logevents lists the lines of our log: the name of each, its keys, and what its reader should do. Users filter
// and alert by these names, so they are an interface. The product does not link this package. Its tests compare the
// list with the code, both ways, and write docs/log-events.md from it.
package logevents

import "log/slog"

// Event is one kind of line.
type Event struct {
	// Name is the message, the key msg in JSON.
	Name  string
	Level slog.Level
	// Keys are what each such line has, Optional what some have. The function Keys says what they mean.
	Keys, Optional []string
	// Means says what happened, and what to do if there is something to do.
	Means string
}

// Section is a part of a run.
type Section struct {
	Title  string
	Events []Event
}

// Sections lists every event by the part of a run to which it belongs.
func Sections() []Section {
	const debug, info, warn, fail = slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError
	return []Section{
		{"Before anything is started", []Event{
			{"environment variable ignored", warn, []string{"detail"}, nil, "A variable whose name begins with ENTRYPOINT_ is nearly one of the entrypoint's. Fix its name."},
			{"version configured", info, []string{"version", "name", "binary", "start_height", "stop_height"}, nil, "One line for each version of the plan."},
			{"emergency stop is set", warn, []string{"version", "stop_height"}, nil, "--stop-height ends the version at this height, and nothing follows there until the plan ends it there, too, or the flag is removed."},
			{"manifest found", info, []string{"manifest", "detail"}, nil, "Versions are verified with it before they start; see [manifest.md](manifest.md)."},
			{"files not verified", warn, []string{"manifest", "detail"}, nil, "The plan names files that are not beside the manifest. They are used as they are."},
			{"not process 1", info, []string{"pid", "detail"}, nil, "There is another init (docker run --init, --pid=host, a shared process namespace), or no container at all. Everything works, but a kill of the entrypoint does not end what a node has started."},
			{"limit of open files not raised", warn, []string{"error"}, nil, "--nofile has no effect: nodes get the container's limit."},
			{"status served", info, []string{"address"}, nil, "Status, probes and metrics are available at this address."},
			{"status served on the loopback address in Kubernetes", warn, []string{"address"}, nil, "Only processes in the pod reach it. An httpGet probe or a scrape gets no answer, and a liveness probe without an answer ends the container again and again, with exit code 0. Set ENTRYPOINT_LISTEN=:9848, or use exec probes only."},
			{"waiting for what a dead entrypoint left running", warn, []string{"pids", "commands", "seconds", "file"}, nil, "An entrypoint was killed, and its node or migration still works on the state. The entrypoint waits for it without a limit, because ending it could damage the state. Comes at once and then every minute. To hurry a node, send it SIGTERM, never SIGKILL. Do not signal a migration: wait for it. Without pids: the processes cannot be seen from here."},
			{"directory cannot be locked", warn, []string{"directory"}, nil, "The file system of the state cannot lock a directory; some kinds of NFS cannot. Only the lock file beside the checkpoint keeps a second entrypoint away, so never use two checkpoints for one state."},
			{"lock held by an unknown process", info, []string{"file"}, nil, "The process that holds it cannot be seen from here: it is in another container or on another host, or /proc is missing. It may be about to end, so the entrypoint waits for five seconds. Then the run ends with 74."},
			{"signal dropped while no node runs", info, []string{"signal"}, nil, "It is not a stop signal, and there is no process to forward it to. It is not kept for the next node."},
			{"status not served", warn, []string{"error"}, nil, "The default address of --listen is taken, usually by a second entrypoint beside this one. The chain runs without probes and metrics. Name a free address."},
			{"last run ended without a word", warn, []string{"began_at", "detail"}, nil, "The run before on this checkpoint has no end on record: it was killed (SIGKILL, docker kill, a grace period that was too short, all memory used up), or the machine lost its power. detail says what is known. See [exit-codes.md](exit-codes.md#last-words-on-the-volume)."},
			{"record of the last run not readable", warn, []string{"error"}, nil, "The file beside the checkpoint whose name ends in .last-run is torn, as a power cut may leave it, or not ours. It is replaced; nothing depends on it."},
			{"run not recorded", warn, []string{"error"}, nil, "The record of this run (.last-run, beside the checkpoint) could not be written. Nothing depends on it, but the next start may say that this run ended without a word. Fix the volume."},
			{"systemd not notified", warn, []string{"error"}, nil, "The socket in NOTIFY_SOCKET does not work. The chain runs, but a unit with Type=notify will be stopped when its start timeout ends."},
			{"checkpoint found", info, []string{"version", "phase", "binary"}, nil, "What the checkpoint says. If the state has a stamp, the stamp takes precedence."},
			{"no checkpoint found", info, nil, nil, "There is none, or --no-checkpoint-file was given. If the state has a stamp, the run continues with its version. If there is no state, it starts with version 0."},
			{"stamp found", info, []string{"version", "name", "migration"}, nil, "The state belongs to this version. The run continues with it."},
			{"checkpoint was interrupted", info, []string{"detail"}, nil, "An earlier run ended after it had written the stamp, and before the checkpoint had followed. It follows now."},
			{"checkpoint corrected", warn, []string{"detail"}, nil, "Checkpoint and stamp name different versions: one of the two was restored without the other, or a run was killed just after it put an undo point back. The stamp takes precedence, and the checkpoint is corrected. If the restore was intended, there is nothing to do."},
			{"old checkpoint kept", info, []string{"file"}, nil, "A copy of the checkpoint from before it was corrected, or from before it followed a stamp for the first time."},
			{"state stamped", info, []string{"detail"}, nil, "The state had no stamp, but the checkpoint shows which version made it. From now on the stamp takes precedence."},
			{"preflight problem", warn, []string{"version", "severity", "problem", "next"}, nil, "An inspection of a version's files, or a comparison with the manifest, found something. Do what next says before the upgrade to that version."},
			{"a version that is complete has a problem", warn, []string{"version", "detail"}, nil, "Its files are missing or changed. They are only needed to go back."},
			{"binary changed", warn, []string{"version", "binary", "was", "is"}, nil, "The content of the version's binary differs from what ran last. It is run: make sure that it is the release that you want."},
		}},
		{"The height of the state", []Event{
			{"height confirmed", info, []string{"version", "height"}, nil, "The node was asked, and gave the durable height of its state. What happens next is decided from it."},
			{"node cannot be asked", warn, []string{"version", "reason", "detail"}, nil, "The node does not know the question, or the plan says that it must not be asked. It runs without a start height, and at its stop height a person must say that it is complete: entrypoint checkpoint set --complete."},
			{"question takes long", warn, []string{"version", "pid", "seconds", "detail"}, nil, "The node was asked and has not answered for 30 seconds. We keep waiting. Usually it cannot reach its DA."},
			{"question ended", debug, []string{"version", "exit", "seconds", "said"}, nil, "What the node wrote when it was asked."},
			{"next step", debug, []string{"action", "version"}, nil, "What happens now that stamp and height are known."},
		}},
		{"Nodes", []Event{
			{"version started", info, []string{"version", "name", "pid", "asserts_start_height", "start_height", "stop_height"}, nil, "The node was started."},
			{"start is tried again", warn, []string{"version", "error"}, nil, "There are no processes or no memory left (EAGAIN, ENOMEM). We try for ten seconds. Then the run ends with 75."},
			{"process not recorded in the lock file", warn, []string{"pid", "error"}, nil, "If this entrypoint is killed and the process has closed the locks that it inherited, the next start will not see it."},
			{"height known", info, []string{"version", "height"}, nil, "The node reported its first height since it started."},
			{"height unknown", warn, []string{"version"}, []string{"seconds", "detail"}, "With seconds: the node has not reported a height for that long; see whether it is still syncing, or hangs. With detail: another process answers on its port, and is not believed."},
			{"height known again", info, []string{"version"}, nil, "The end of height unknown."},
			{"next version unreadable", warn, []string{"version", "error"}, nil, "The binary of the next version cannot be read ahead. Fix the file before the upgrade."},
			{"checkpoint not written", warn, []string{"version", "error", "detail"}, nil, "The stamp is durable, but the checkpoint, which follows it, could not be written. We try again every 30 seconds. Fix the volume: otherwise the next write of the stamp ends the run with 74."},
			{"disk is slow", warn, []string{"seconds", "detail"}, nil, "Comes every 15 seconds until a read or write of the record or the state returns. Signals are still accepted, and nothing is started."},
			{"version exited", info, []string{"version", "exit", "stop_requested"}, nil, "The node has ended. After exit 0 it is asked for the height of its state, unless a stop was requested."},
			{"restarting the node in place", info, []string{"version", "reason", "restarts"}, nil, "The node exited 0 below its stop height, as a replica does when it becomes leader. restarts counts the last ten minutes. After more than --restarts the run ends with 75."},
			{"stopping the node", fail, []string{"version", "reason"}, nil, "The node reported a height above its stop height, or ran when it was only started to report its height. It gets SIGTERM. The end of the run says what to do."},
			{"killing the node", warn, []string{"version", "pid"}, nil, "The node did not stop in time (--stop-timeout), and gets SIGKILL."},
			{"leftover processes ended", warn, []string{"version", "count"}, nil, "The node or migration left processes behind. They have ended, and the run continues. Find out what starts them."},
			{"leftover processes still run", warn, []string{"version", "processes", "detail"}, nil, "A node or migration has ended, but processes that it started have not. Comes every minute. Nothing is started until they have ended. Those of a node got SIGTERM; see --leftover-timeout and --stop-timeout."},
			{"killing leftover processes", warn, []string{"version", "processes"}, nil, "They did not end in time (--stop-timeout, --leftover-timeout), and get SIGKILL."},
		}},
		{"Upgrades", []Event{
			{"version completed", info, []string{"version", "height", "proof"}, nil, "The version has reached its stop height, and the next one is entered. proof says how that is known."},
			{"complete by the height slack", warn, []string{"version", "height", "stop_height"}, nil, "The node cannot be asked, exited 0, and last reported a height within --height-slack of its stop height. That is no proof, but --height-slack says that it is enough."},
			{"sequence finished", info, []string{"version", "height"}, []string{"detail"}, "The last version has reached its stop height, or, with detail, a version has reached --stop-height. The run ends with 0, or waits."},
			{"waiting for a stop signal", info, nil, nil, "--when-finished=wait keeps the finished sequence running."},
		}},
		{"Holds, undo points and hooks", []Event{
			{"held", info, []string{"file", "before"}, nil, "An operator's hold keeps the version named by before, or, if that is empty, anything, from being started. No process has the state open. Remove the file, or run entrypoint resume, to continue."},
			{"hold ended", info, []string{"file"}, nil, "The file is gone, and the run continues. Whose state it is, and its height, are looked at anew."},
			{"hold unreadable", warn, []string{"error", "detail"}, nil, "The hold file is there, but cannot be read, or names a version that the plan does not have. It holds before every version until it is removed."},
			{"start would fail", warn, []string{"error"}, nil, "Without the hold, this start would end with that. Put things right before you remove the hold."},
			{"undo point made", info, []string{"version", "path", "method", "bytes"}, nil, "The state was copied before the version touches it; see [undo.md](undo.md)."},
			{"state is being copied", info, []string{"version", "done_bytes", "bytes", "seconds", "eta_seconds"}, nil, "The undo point is a real copy, which takes long. Comes every 30 seconds."},
			{"no undo point", warn, []string{"version", "reason"}, nil, "The upgrade to this version continues, but it cannot be undone. See [undo.md](undo.md) for the ways out."},
			{"undo point is the state", info, []string{"path", "failed"}, nil, "An undo point was put back: by this run, or by one that was killed before it had finished that."},
			{"incomplete undo point deleted", info, []string{"path"}, nil, "A run was killed while it copied or deleted an undo point. The state itself is whole."},
			{"incomplete undo point not deleted", warn, []string{"error"}, nil, "The copy of the state failed, and what was copied cannot be deleted. Delete it by hand if the volume is short of room; the next start tries again."},
			{"older copy of the state deleted", info, []string{"path"}, nil, "There is room for one undo point only: the older one, and a failed state that was kept, make room for the new one."},
			{"undo point put back", warn, []string{"version", "path", "failed"}, nil, "The upgrade to this version failed before it could make a block. The state is the one from before it again, and the failed one is kept. The next start enters the version anew."},
			{"migration was interrupted", warn, []string{"version", "detail"}, nil, "A migration began in an earlier run and is not recorded as completed. Its undo point is there, so that is put back, and the version is entered anew."},
			{"hook started", info, []string{"version", "hook", "pid"}, nil, "The hook before the version was started."},
			{"hook still runs", info, []string{"version", "pid", "seconds"}, nil, "Comes every 30 seconds. It says that the process is alive, not that it makes progress."},
			{"the hook is not interrupted", warn, []string{"version", "detail"}, nil, "A stop signal came. The hook runs to its end, and nothing is started after it. A stop signal that comes 10 s or more after the first is passed on to it."},
			{"hook finished", info, []string{"version", "exit", "exit_code", "seconds"}, nil, "The hook has ended. With any other exit_code than 0 the run ends with it, and the next start runs the hook again."},
		}},
		{"Migrations", []Event{
			{"interrupted migration is run again", warn, []string{"version", "migration"}, nil, "It began in an earlier run and is not recorded as completed. If it does not survive a second run, set on_interrupted_migration to halt."},
			{"migration started", info, []string{"version", "migration", "pid"}, nil, "The migration was started. Do not kill the container now."},
			{"migration still runs", info, []string{"version", "pid", "seconds"}, nil, "Comes every 30 seconds. It says that the process is alive, not that it makes progress."},
			{"the migration is not interrupted", warn, []string{"version", "detail"}, nil, "A stop signal came. The migration runs to its end, and nothing is started after it. A stop signal that comes 10 s or more after the first is passed on to it."},
			{"migration finished", info, []string{"version", "exit", "exit_code", "seconds"}, nil, "The migration has ended. It is complete only with exit_code 0."},
			{"record not written", warn, []string{"version", "error"}, nil, "The migration has completed, but that could not be recorded. We try ten times, a second apart. Then the run ends with 74. Do what its message says before anything is started again. Or the node came up, and that could not be recorded: then the undo point must not be put back without looking at the height."},
		}},
		{"Signals and the end", []Event{
			{"stop requested", info, []string{"signal"}, nil, "The first TERM, INT or QUIT. Nothing is started any more."},
			{"signal forwarded", info, []string{"version", "signal"}, nil, "A signal was passed on to the process group of the node or migration."},
			{"signal not delivered", debug, []string{"version", "signal", "error"}, nil, "The process had just ended."},
			{"signal cannot be delivered", fail, []string{"version", "signal", "error"}, nil, "The kernel refuses it, because the process now runs as another user. End it by hand, and do not let the node change its user."},
			{"signals were not delivered", fail, []string{"signal", "times"}, nil, "At the end of a run: how often that happened."},
			{"stopped", info, []string{"reason"}, nil, "The run ends with 0, because it was asked to stop."},
			{"termination message not written", warn, []string{"error"}, nil, "The file of --termination-log cannot be used. The next line says why the run ended."},
			{"run failed", fail, []string{"exit_code", "error"}, []string{"cause", "stderr", "version", "start_height", "stop_height", "height"}, "The last line of a run that failed. error says what happened, what is safe and what to do next; cause is for programs; see [exit-codes.md](exit-codes.md)."},
		}},
		{"Processes", []Event{
			{"process stopped", info, []string{"pid", "signal"}, nil, "A node or its migration was suspended, as by SIGSTOP. kill -CONT resumes it."},
			{"process table unreadable, only process groups are ended", warn, []string{"error"}, nil, "/proc is missing. A process that leaves its process group is not found. Mount /proc."},
			{"leftover process cannot be asked to end", fail, []string{"pid", "command", "error"}, nil, "It runs as another user, and the kernel does not let the entrypoint send it SIGTERM. We wait for it. End it by hand, or give the container CAP_KILL."},
			{"processes left behind outlive SIGKILL", warn, []string{"pids"}, nil, "They hang in the kernel, usually on a disk. Nothing is started beside them. Look at the volume or the host."},
		}},
		{"entrypoint exec", []Event{
			{"cannot run the command", fail, []string{"error"}, nil, "The command is missing or not executable."},
			{"command ended", info, []string{"exit", "exit_code"}, nil, "The command has ended, by itself or by a signal. Shown with -v."},
			{"signal dropped", debug, []string{"signal"}, nil, "--signal-map maps it to 0. Shown with -vv, as is the next one."},
			{"child stopped", debug, []string{"pid", "signal"}, nil, "The command was suspended, and there is no shell above it to report that to."},
			{"signal not forwarded", warn, []string{"signal", "error"}, nil, "The kernel refused it."},
		}},
	}
}

// Key is a key and its meaning, in every event that has it.
type Key struct {
	Name, Type, Means string
}

// Keys lists every key, besides time, level and msg, which each line has.
func Keys() []Key {
	return []Key{
		{"action", "string", "ask, run, enter, migrate again, put back, finish or refuse"},
		{"address", "string", "host and port"},
		{"asserts_start_height", "boolean", "the node was given its start height, which it compares with the durable height"},
		{"before", "string", "name of a version; empty for all of them"},
		{"began_at", "string", "time at which a run began"},
		{"binary", "string", "path of the node's program"},
		{"bytes", "number", "size of a state"},
		{"cause", "string", "why a run failed, as a fixed word: see the causes in [exit-codes.md](exit-codes.md#causes)"},
		{"command", "string", "name of a process as the kernel has it (comm), without arguments"},
		{"commands", "list of strings", "names of processes, in the order of pids; never their arguments"},
		{"count", "number", "how many"},
		{"detail", "string", "a sentence for people; its words may change"},
		{"directory", "string", "path of a directory"},
		{"done_bytes", "number", "how much of it was copied"},
		{"error", "string", "an error's text; its words may change"},
		{"eta_seconds", "number", "how long it will still take at this rate"},
		{"exit", "string", "how a process ended, in words"},
		{"exit_code", "number", "0 to 255, as in a shell: 128+n for a process killed by signal n"},
		{"failed", "string", "path of the state that was kept aside"},
		{"file", "string", "path of a file"},
		{"height", "number", "in blocks; reported by the node, or confirmed if the event says so"},
		{"hook", "string", "path of the hook's program"},
		{"is", "string", "SHA-256 of a binary now, in hex"},
		{"manifest", "string", "path of the manifest"},
		{"method", "string", "reflink or copy"},
		{"migration", "string", "path of the migration's program; for a stamp: begun, completed or empty"},
		{"name", "string", "name of a version"},
		{"next", "string", "what to do; its words may change"},
		{"path", "string", "path of a directory of the state"},
		{"phase", "string", "phase of the checkpoint: migrating, running, finished, or empty; finishing_previous in a file of an earlier release"},
		{"pid", "number", "of a process, in the entrypoint's process namespace"},
		{"pids", "list of numbers", "of several processes; a negative one is a process group"},
		{"problem", "string", "what was found; its words may change"},
		{"processes", "string", "processes for people: pid, name, and how long they have been left"},
		{"proof", "string", "how it is known that a stop height was reached: durable height, a person's word, height slack"},
		{"reason", "string", "why something was done; its words may change"},
		{"restarts", "number", "how often a node was restarted in place within ten minutes"},
		{"said", "string", "the last lines that a node wrote when it was asked"},
		{"seconds", "number", "how long something has taken so far"},
		{"severity", "string", "error or warning"},
		{"signal", "string", "name of a signal, such as SIGTERM"},
		{"start_height", "number", "first height of a version in blocks; 0: it starts from genesis"},
		{"stderr", "string", "the last lines that the node or migration wrote to stderr"},
		{"stop_height", "number", "last height of a version in blocks; 0: it has none"},
		{"stop_requested", "boolean", "a stop signal was received before"},
		{"times", "number", "how often"},
		{"version", "number", "index of a version in the plan, from 0"},
		{"was", "string", "SHA-256 of a binary before, in hex"},
	}
}
