// Package logevents lists the lines of our log: what each is called, what it carries and what it asks of its reader.
// Users filter and alert by these names, so they are an interface. Nothing links this package; its tests compare the list
// with the code, both ways, and write docs/log-events.md from it.
package logevents

import "log/slog"

// Event is one kind of line.
type Event struct {
	// Name is the message, the key msg in JSON.
	Name  string
	Level slog.Level
	// Keys are those that each such line has, Optional those that some have. Keys says what they mean.
	Keys, Optional []string
	// Means says what has happened, and what to do where there is something to do.
	Means string
}

// Section is a part of a run.
type Section struct {
	Title  string
	Events []Event
}

// Sections lists every event, by where in a run it belongs.
func Sections() []Section {
	const debug, info, warn, fail = slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError
	return []Section{
		{"Before anything is started", []Event{
			{"environment variable ignored", warn, []string{"detail"}, nil, "A variable that begins with ENTRYPOINT_ is nearly one of ours. Fix its name."},
			{"version configured", info, []string{"version", "name", "binary", "start_height", "stop_height"}, nil, "One line for each version of the config."},
			{"manifest found", info, []string{"manifest", "detail"}, nil, "The versions are verified with it before they are started; see [manifest.md](manifest.md)."},
			{"files not verified", warn, []string{"manifest", "detail"}, nil, "The config names files that are not beside the manifest. They are run as they are."},
			{"not process 1", info, []string{"pid", "detail"}, nil, "There is another init: docker run --init, --pid=host, a shared process namespace, or no container at all. All works, but a kill of the entrypoint does not end what a node has started."},
			{"status served", info, []string{"address"}, nil, "Status, probes and metrics are answered there."},
			{"status not served", warn, []string{"error"}, nil, "The default address of --listen is taken, usually by a second entrypoint beside this one. The chain runs without probes and metrics: name a free address."},
			{"checkpoint found", info, []string{"version", "phase", "binary"}, nil, "What the checkpoint says. If the state has a stamp, the stamp counts."},
			{"no checkpoint found", info, nil, nil, "There is none, or --no-checkpoint-file was given. If the state has a stamp the run continues with its version; if there is no state it starts with version 0."},
			{"stamp found", info, []string{"version", "name", "migration"}, nil, "The state has this version's format. The run continues with it."},
			{"checkpoint was interrupted", info, []string{"detail"}, nil, "An earlier run ended after it had written the stamp and before the checkpoint had followed. It follows now."},
			{"checkpoint corrected", warn, []string{"detail"}, nil, "Checkpoint and stamp name different versions: one of the two was restored without the other. The stamp counts, and the checkpoint is corrected. Nothing is to be done if the restore was meant."},
			{"old checkpoint kept", info, []string{"file"}, nil, "The checkpoint as it was before it was corrected, or before it followed a stamp for the first time."},
			{"state stamped", info, []string{"detail"}, nil, "The state had no stamp, and the checkpoint shows which version made it. From now on the stamp counts."},
			{"preflight problem", warn, []string{"version", "severity", "problem", "next"}, nil, "A look at the files of a version found something, or a comparison with the manifest. Do what next says, before its upgrade comes."},
			{"a version that is complete has a problem", warn, []string{"version", "detail"}, nil, "Its files are gone or changed. They are only needed to go back."},
			{"binary changed", warn, []string{"version", "binary", "was", "is"}, nil, "The version's binary has another content than the one that ran last. It is run: make sure that it is the release that you mean."},
		}},
		{"The height of the state", []Event{
			{"height confirmed", info, []string{"version", "height"}, nil, "The node was asked, and gave the durable height of its state. What follows is decided by it."},
			{"node cannot be asked", warn, []string{"version", "reason", "detail"}, nil, "The node does not know the question, or the config says that it must not be asked. It runs without a start height, and at its stop height a person has to say that it is complete: entrypoint checkpoint set --complete."},
			{"question takes long", warn, []string{"version", "pid", "seconds", "detail"}, nil, "The node was asked and has not answered for 30 seconds. It is waited for; as a rule it cannot reach its DA."},
			{"question ended", debug, []string{"version", "exit", "seconds", "said"}, nil, "What the node wrote when it was asked."},
			{"next step", debug, []string{"action", "version"}, nil, "What is done now that stamp and height are known."},
		}},
		{"Nodes", []Event{
			{"version started", info, []string{"version", "name", "pid", "asserts_start_height", "start_height", "stop_height"}, nil, "The node is executed."},
			{"height known", info, []string{"version", "height"}, nil, "The node reported its first height since it was started."},
			{"height unknown", warn, []string{"version"}, []string{"seconds", "detail"}, "With seconds: the node has reported no height for so long; see whether it still syncs, or hangs. With detail: another process answers on its port, and is not believed."},
			{"height known again", info, []string{"version"}, nil, "The end of height unknown."},
			{"next version unreadable", warn, []string{"version", "error"}, nil, "The binary of the next version cannot be read ahead. Fix the file before the upgrade."},
			{"checkpoint not written", warn, []string{"version", "error", "detail"}, nil, "The stamp is durable, and the checkpoint, which follows it, could not be written. It is tried again every 30 seconds. Fix the volume: the next write of the stamp would end the run with 74."},
			{"version exited", info, []string{"version", "exit", "stop_requested"}, nil, "The node has ended. After exit 0 it is asked for the height of its state, unless a stop was requested."},
			{"restarting the node in place", info, []string{"version", "reason", "restarts"}, nil, "The node exited 0 below its stop height, as a replica does that became leader. restarts counts the last ten minutes; after more than --restarts the run ends with 75."},
			{"stopping the node", fail, []string{"version", "reason"}, nil, "The node reported a height above its stop height, or came up when it was only asked for its height. It gets SIGTERM. See the end of the run for what follows."},
			{"killing the node", warn, []string{"version", "pid"}, nil, "The node has not stopped in time (--stop-timeout), and gets SIGKILL."},
			{"leftover processes ended", warn, []string{"count"}, nil, "The node or migration left processes behind. They are ended before anything follows; find out what starts them."},
		}},
		{"Upgrades", []Event{
			{"version completed", info, []string{"version", "height", "proof"}, nil, "The version has reached its stop height, and the next one is entered. proof says how that is known."},
			{"complete by the height slack", warn, []string{"version", "height", "stop_height"}, nil, "The node cannot be asked, exited 0, and last reported a height within --height-slack of its stop height. That is no proof, but --height-slack says that it is enough."},
			{"sequence finished", info, []string{"version", "height"}, nil, "The last version has reached its stop height. The run ends with 0, or waits."},
			{"waiting for a stop signal", info, nil, nil, "--when-finished=wait keeps the finished sequence up."},
		}},
		{"Migrations", []Event{
			{"interrupted migration is run again", warn, []string{"version", "migration"}, nil, "It was begun before and is not recorded as completed. If it does not survive a second run, set on_interrupted_migration to halt."},
			{"migration started", info, []string{"version", "migration", "pid"}, nil, "The migration is executed. Do not kill the container now."},
			{"migration still runs", info, []string{"version", "pid", "seconds"}, nil, "Comes every 30 seconds. It says that the process lives, not that it makes progress."},
			{"the migration is not interrupted", warn, []string{"version", "detail"}, nil, "A stop signal came. The migration runs to its end and nothing follows; a second stop signal is passed on to it."},
			{"migration finished", info, []string{"version", "exit", "exit_code", "seconds"}, nil, "The migration has ended; completed only with exit_code 0."},
			{"record not written", warn, []string{"version", "error"}, nil, "The migration has completed, and that could not be recorded. It is tried ten times, a second apart; then the run ends with 74. Do what its message says before anything is started again."},
		}},
		{"Signals and the end", []Event{
			{"stop requested", info, []string{"signal"}, nil, "The first TERM, INT or QUIT. Nothing is started any more."},
			{"signal forwarded", info, []string{"version", "signal"}, nil, "A signal was passed on to the process group of the node or migration."},
			{"signal not delivered", debug, []string{"version", "signal", "error"}, nil, "The process had ended just then."},
			{"stopped", info, []string{"reason"}, nil, "The run ends with 0, as it was asked to."},
			{"termination message not written", warn, []string{"error"}, nil, "The file of --termination-log cannot be used. The next line has the reason of the end."},
			{"run failed", fail, []string{"exit_code", "error"}, []string{"cause", "stderr", "version", "start_height", "stop_height", "height"}, "The last line of a run that failed. error says what happened, what is safe and what to do next; cause is for programs; see [exit-codes.md](exit-codes.md)."},
		}},
		{"Processes", []Event{
			{"process stopped", info, []string{"pid", "signal"}, nil, "A node, or its migration, was stopped as by SIGSTOP. kill -CONT continues it."},
			{"process table unreadable, only process groups are ended", warn, []string{"error"}, nil, "/proc is missing. What leaves its process group is not found: mount /proc."},
			{"processes left behind outlive SIGKILL", warn, []string{"pids"}, nil, "They hang in the kernel, usually on a disk. Nothing is started beside them; look at the volume or the host."},
		}},
		{"entrypoint exec", []Event{
			{"cannot run the command", fail, []string{"error"}, nil, "The command is not there or not executable."},
			{"command ended", info, []string{"exit", "exit_code"}, nil, "The command has ended by itself or by a signal. Shown with -v."},
			{"signal dropped", debug, []string{"signal"}, nil, "--signal-map maps it to 0. Shown with -vv, as is the next one."},
			{"child stopped", debug, []string{"pid", "signal"}, nil, "The command was stopped and there is no shell above it to be told."},
			{"signal not forwarded", warn, []string{"signal", "error"}, nil, "The kernel refused it."},
		}},
	}
}

// Key is what a key means, in every event that has it.
type Key struct {
	Name, Type, Means string
}

// Keys lists every key, besides time, level and msg, which each line has.
func Keys() []Key {
	return []Key{
		{"action", "string", "ask, run, enter, migrate again, finish or refuse"},
		{"address", "string", "host and port"},
		{"asserts_start_height", "boolean", "the node was given its start height, which it compares with the durable one"},
		{"binary", "string", "path of the node's program"},
		{"cause", "string", "why a run failed, as a fixed word: see the causes in [exit-codes.md](exit-codes.md#causes)"},
		{"count", "number", "how many"},
		{"detail", "string", "a sentence for a person; its words may change"},
		{"error", "string", "an error's text; its words may change"},
		{"exit", "string", "how a process ended, in words"},
		{"exit_code", "number", "0 to 255, as a shell has it: 128+n for a process that was killed by signal n"},
		{"file", "string", "path of a file"},
		{"height", "number", "in blocks: reported by the node, or confirmed if the event says so"},
		{"is", "string", "SHA-256 of a binary now, in hex"},
		{"manifest", "string", "path of the manifest"},
		{"migration", "string", "path of the migration's program; in a stamp begun, completed or empty"},
		{"name", "string", "name of a version"},
		{"next", "string", "what to do; its words may change"},
		{"phase", "string", "phase of the checkpoint: migrating, running, finished, or empty; finishing_previous in a file of an earlier release"},
		{"pid", "number", "of a process, in our process namespace"},
		{"pids", "list of numbers", "of several; a negative one is a process group"},
		{"problem", "string", "what was found; its words may change"},
		{"proof", "string", "how it is known that a stop height is reached: durable height, a person's word, height slack"},
		{"reason", "string", "why something was done; its words may change"},
		{"restarts", "number", "how often a node was restarted in place within ten minutes"},
		{"said", "string", "the last lines that a node wrote when it was asked"},
		{"seconds", "number", "how long something has taken so far"},
		{"severity", "string", "error or warning"},
		{"signal", "string", "name of a signal, as SIGTERM"},
		{"start_height", "number", "first height of a version in blocks; 0: it starts from genesis"},
		{"stderr", "string", "the last lines that the node or migration wrote there"},
		{"stop_height", "number", "last height of a version in blocks; 0: it runs without end"},
		{"stop_requested", "boolean", "a stop signal was received before"},
		{"version", "number", "index of a version in the config, from 0"},
		{"was", "string", "SHA-256 of a binary before, in hex"},
	}
}
