// Package logevents lists the lines of our log: what each is called, what it carries and what it asks of whoever reads it.
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
			{"environment variable ignored", warn, []string{"detail"}, nil, "A variable that begins with ENTRYPOINT_ is nearly one of ours. Mend its name."},
			{"version configured", info, []string{"version", "name", "binary", "start_height", "stop_height"}, nil, "One line for each version of the config."},
			{"manifest found", info, []string{"manifest", "detail"}, nil, "The versions are verified with it before they are started; see [manifest.md](manifest.md)."},
			{"files not verified", warn, []string{"manifest", "detail"}, nil, "The config names files that do not lie beside the manifest. They are run as they are."},
			{"not process 1", info, []string{"pid", "detail"}, nil, "There is another init: docker run --init, --pid=host, a shared process namespace, or no container at all. All works, but a kill of the entrypoint does not end what a node has started."},
			{"status served", info, []string{"address"}, nil, "Status, probes and metrics are answered there."},
			{"status not served", warn, []string{"error"}, nil, "The default address of --listen is taken, as a rule by a second entrypoint beside this one. The chain runs without probes and metrics: name a free address."},
			{"checkpoint found", info, []string{"version", "phase", "binary"}, nil, "The run goes on from there."},
			{"no checkpoint found", info, []string{"detail"}, nil, "The run begins with version 0. On a volume that had a checkpoint before: stop, and look for the volume."},
			{"no checkpoint is kept", info, []string{"detail"}, nil, "--no-checkpoint-file was given."},
			{"migrations are not recorded", warn, []string{"detail"}, nil, "The config has a migration and there is no checkpoint file. Use --checkpoint-file."},
			{"plan changed", warn, []string{"detail"}, nil, "A version that is complete has another stop_height now than when it ended. Put the config right."},
			{"preflight problem", warn, []string{"version", "severity", "problem", "next"}, nil, "A look at the files of a version found something, or a comparison with the manifest. Do what next says, before its upgrade comes."},
			{"a version that is complete has a problem", warn, []string{"version", "detail"}, nil, "Its files are gone or changed. They are only needed to go back."},
			{"binary moved", info, []string{"version", "from", "to"}, nil, "The checkpoint names another path, with the same content. It is brought up to date."},
			{"binary changed", warn, []string{"version", "binary", "was", "is"}, nil, "The file at the same path has another content than when the checkpoint was written. It is run: see that this is the release that you mean."},
		}},
		{"Nodes", []Event{
			{"version started", info, []string{"version", "name", "pid", "asserts_start_height", "start_height", "stop_height"}, nil, "The node is executed."},
			{"height known", info, []string{"version", "height"}, nil, "The node told its first height since it was started."},
			{"height unknown", warn, []string{"version"}, []string{"seconds", "detail"}, "With seconds: the node has told no height for so long; see whether it still syncs, or hangs. With detail: somebody else answers on its port, and is not believed."},
			{"height known again", info, []string{"version"}, nil, "The end of height unknown."},
			{"next version unreadable", warn, []string{"version", "error"}, nil, "The binary of the version that comes next cannot be read ahead. Mend the file before the upgrade."},
			{"checkpoint not written", warn, []string{"version", "error"}, nil, "A write failed. A node that runs is not stopped for it, and the end of a migration is tried to be recorded ten times; any other failure ends the run. See to the volume at once."},
			{"version exited", info, []string{"version", "decision", "reason"}, nil, "The node has ended. decision says what follows."},
			{"stopping the node", fail, []string{"version", "reason"}, nil, "The node must not run on: it is above its stop height, or its state is below its start height. The run ends with 78."},
			{"killing the node", warn, []string{"version", "pid"}, nil, "The node has not stopped in time (--stop-timeout, or 15 s after \"stopping the node\"), and gets SIGKILL."},
			{"leftover processes ended", warn, []string{"count"}, nil, "The node or migration left processes behind. They are ended before anything follows; find out what starts them."},
		}},
		{"Upgrades", []Event{
			{"verifying the stop height", info, []string{"version", "stop_height", "detail"}, nil, "The node exited 0 and is started once more. That it refuses its stop height, which it logs as an error, is the proof."},
			{"version completed", info, []string{"version", "height", "proof"}, nil, "The version has reached its stop height. What follows is the next one, or the end."},
			{"previous version was not complete", warn, []string{"version", "height", "stop_height"}, nil, "The next version's node found the state below its start height. The version named here runs on."},
			{"previous version runs on", info, []string{"version", "stop_height"}, nil, "It is started once more, to reach and prove its stop height."},
			{"sequence finished", info, []string{"version", "height"}, nil, "The last version has reached its stop height. The run ends with 0, or waits."},
			{"waiting for a stop signal", info, nil, nil, "--when-finished=wait keeps the finished sequence up."},
		}},
		{"Migrations", []Event{
			{"proving the stop height before the migration", info, []string{"version", "stop_height"}, nil, "The checkpoint was set by hand, or a stop height was changed: the version before is started and has to prove where the state is."},
			{"interrupted migration is run again", warn, []string{"version", "migration"}, nil, "It was begun before and is not recorded as completed. If it does not survive a second run, set on_interrupted_migration to halt."},
			{"migration started", info, []string{"version", "migration", "pid"}, nil, "The migration is executed. Do not kill the container now."},
			{"migration still runs", info, []string{"version", "pid", "seconds"}, nil, "Comes every 30 seconds. It says that the process lives, not that it makes progress."},
			{"the migration is not interrupted", warn, []string{"version", "detail"}, nil, "A stop signal came. The migration runs to its end and nothing follows; a second stop signal is passed on to it."},
			{"migration finished", info, []string{"version", "exit", "exit_code", "seconds"}, nil, "The migration has ended; completed only with exit_code 0."},
		}},
		{"Signals and the end", []Event{
			{"stop requested", info, []string{"signal"}, nil, "The first TERM, INT or QUIT. Nothing is started any more."},
			{"signal forwarded", info, []string{"version", "signal"}, nil, "A signal was passed on to the process group of the node or migration."},
			{"signal not delivered", debug, []string{"version", "signal", "error"}, nil, "The process had ended just then."},
			{"stopped", info, []string{"reason"}, nil, "The run ends with 0, as it was asked to."},
			{"termination message not written", warn, []string{"error"}, nil, "The file of --termination-log cannot be used. The reason of the end stands in the next line."},
			{"run failed", fail, []string{"exit_code", "error"}, []string{"stderr", "version", "start_height", "stop_height", "height"}, "The last line of a run that failed. error says what happened, what is safe and what to do next; see [exit-codes.md](exit-codes.md)."},
		}},
		{"Processes", []Event{
			{"process stopped", info, []string{"pid", "signal"}, nil, "A node, or its migration, was stopped as by SIGSTOP. kill -CONT continues it."},
			{"process table unreadable, only process groups are ended", warn, []string{"error"}, nil, "/proc is missing. What leaves its process group is not found: mount /proc."},
			{"processes left behind outlive SIGKILL", warn, []string{"pids"}, nil, "They hang in the kernel, as a rule on a disk. Nothing is started beside them; see to the volume or the host."},
		}},
		{"entrypoint exec", []Event{
			{"cannot run the command", fail, []string{"error"}, nil, "The command is not there or not executable."},
			{"command ended", info, []string{"exit", "exit_code"}, nil, "The command has ended by itself or by a signal. Shown with -v."},
			{"signal dropped", debug, []string{"signal"}, nil, "--signal-map maps it to 0. Shown with -vv, as is the next one."},
			{"child stopped", debug, []string{"pid", "signal"}, nil, "The command was stopped and there is no shell above that would want to know."},
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
		{"address", "string", "host and port"},
		{"asserts_start_height", "boolean", "the node was given its start height, which it compares with the durable one"},
		{"binary", "string", "path of the node's program"},
		{"count", "number", "how many"},
		{"decision", "string", "complete, stopped as asked, verify, failed, start without start height, finish the previous version"},
		{"detail", "string", "a sentence for a person; its words may change"},
		{"error", "string", "an error's text; its words may change"},
		{"exit", "string", "how a process ended, in words"},
		{"exit_code", "number", "0 to 255, as a shell has it: 128+n for a process that was killed by signal n"},
		{"from", "string", "the path before"},
		{"height", "number", "in blocks: told by the node, or proven where the event says so"},
		{"is", "string", "SHA-256 of a binary now, in hex"},
		{"manifest", "string", "path of the manifest"},
		{"migration", "string", "path of the migration's program"},
		{"name", "string", "name of a version"},
		{"next", "string", "what to do; its words may change"},
		{"phase", "string", "phase of the checkpoint: migrating, running, finishing_previous, finished, or empty"},
		{"pid", "number", "of a process, in our process namespace"},
		{"pids", "list of numbers", "of several; a negative one is a process group"},
		{"problem", "string", "what was found; its words may change"},
		{"proof", "string", "how it is known that a stop height is reached: durable height, last height read, height slack"},
		{"reason", "string", "why something was done; its words may change"},
		{"seconds", "number", "how long something has taken so far"},
		{"severity", "string", "error or warning"},
		{"signal", "string", "name of a signal, as SIGTERM"},
		{"start_height", "number", "first height of a version in blocks; 0: it starts from genesis"},
		{"stderr", "string", "the last lines that the node or migration wrote there"},
		{"stop_height", "number", "last height of a version in blocks; 0: it runs without end"},
		{"to", "string", "the path now"},
		{"version", "number", "index of a version in the config, from 0"},
		{"was", "string", "SHA-256 of a binary before, in hex"},
	}
}
