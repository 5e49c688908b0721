package simulation

// fault is something that the world does to the sequence, or that the sequence is seen to do. They are counted, because
// one that never happens tests nothing.
type fault int

const (
	killAtStep fault = iota
	killAtTime
	powerCutAtStep
	powerCutAtTime
	powerCutLostRename
	signalAtStep
	signalAtTime
	stopSignal
	otherSignal
	secondStop
	orchestratorKill
	probeStop

	diskTempFails
	diskSyncFails
	diskRenameFails
	diskDirSyncFails
	diskFull
	diskSlow
	loadFails
	checkpointLost
	checkpointForeign
	checkpointReference
	checkpointAhead
	volumeRestored
	stateWiped

	startRefused
	filesMissing
	configUnreadable
	sweepFails
	leftover
	leftoverStubborn
	stranger
	strangerTakesPort

	nodeCrashStarting
	nodeCrash
	nodeKilledBySignal
	nodeOutOfMemory
	leaderRestart
	leaderRestartAtStop
	nodeHangs
	nodeIgnoresTerm
	slowShutdown
	overrun
	httpAbsent
	httpNull
	httpGarbage
	httpHangs
	slowStart
	stderrNoise
	heldQuery

	refusedStop
	refusedStopBeyond
	refusedStart
	termWhileStarting

	migrationKilledClean
	migrationKilledHalf
	migrationKilledDone
	migrationFailsClean
	migrationFailsHalf
	migrationRefusesAgain
	migrationRerun
	migrationResumed

	repairSet
	repairRestore
	repairDelete
	repairMend
	repairUseCheckpoint
	halted

	decideComplete
	decideStopped
	decideVerify
	decideFail
	decideWithoutAssertion
	decideFinishPrevious
	finished
	finishedWaiting
	endlessReached
	lateResync
	withSlack
	withoutCheckpoint
	withMigration

	faultCount
)

var faultNames = [faultCount]string{
	killAtStep: "entrypoint killed at a step", killAtTime: "entrypoint killed at a moment",
	powerCutAtStep: "power cut at a step", powerCutAtTime: "power cut at a moment", powerCutLostRename: "power cut brought the old checkpoint back",
	signalAtStep: "signal at a step", signalAtTime: "signal at a moment", stopSignal: "stop signal", otherSignal: "other signal", secondStop: "second stop signal",
	orchestratorKill: "killed for not stopping", probeStop: "stopped by the liveness probe",

	diskTempFails: "disk: temporary file fails", diskSyncFails: "disk: fsync fails", diskRenameFails: "disk: rename fails",
	diskDirSyncFails: "disk: fsync of the directory fails", diskFull: "disk: full for a while", diskSlow: "disk: slow write",
	loadFails: "checkpoint not readable, once", checkpointLost: "checkpoint deleted", checkpointForeign: "checkpoint overwritten",
	checkpointReference: "checkpoint of the reference", checkpointAhead: "checkpoint set to the next version too early", volumeRestored: "volume restored from a snapshot", stateWiped: "state wiped",

	startRefused: "program not executable", filesMissing: "files missing", configUnreadable: "config unreadable", sweepFails: "leftover cannot be ended",
	leftover: "process left behind", leftoverStubborn: "process left behind ignores SIGTERM", stranger: "stranger answers on the port", strangerTakesPort: "stranger holds the port",

	nodeCrashStarting: "node: crash in start-up", nodeCrash: "node: exit 101", nodeKilledBySignal: "node: killed by a fault signal", nodeOutOfMemory: "node: SIGKILL from outside",
	leaderRestart: "node: restart as leader", leaderRestartAtStop: "node: restart as leader at soft = stop", nodeHangs: "node: hangs", nodeIgnoresTerm: "node: ignores SIGTERM",
	slowShutdown: "node: slow shutdown", overrun: "node: overrun", httpAbsent: "http: absent", httpNull: "http: null", httpGarbage: "http: garbage", httpHangs: "http: hangs",
	slowStart: "node: slow start", stderrNoise: "node: noise on stderr", heldQuery: "http: open query holds the exit",

	refusedStop: "node refused: stop height reached", refusedStopBeyond: "node refused: beyond the stop height", refusedStart: "node refused: start height",
	termWhileStarting: "node killed by a signal in start-up",

	migrationKilledClean: "migration killed before it wrote", migrationKilledHalf: "migration killed half-way", migrationKilledDone: "migration killed when done",
	migrationFailsClean: "migration fails at once", migrationFailsHalf: "migration fails half-way", migrationRefusesAgain: "migration refuses a second run",
	migrationRerun: "migration run again when done", migrationResumed: "migration resumed",

	repairSet: "operator: checkpoint set", repairRestore: "operator: state restored", repairDelete: "operator: checkpoint deleted",
	repairMend: "operator: files mended", repairUseCheckpoint: "operator: uses a checkpoint file", halted: "halted on an interrupted migration",

	decideComplete: "decided: complete", decideStopped: "decided: stopped", decideVerify: "decided: verify", decideFail: "decided: failed",
	decideWithoutAssertion: "decided: start without start height", decideFinishPrevious: "decided: finish the previous version",
	finished: "life: finished", finishedWaiting: "life: finished, waits", endlessReached: "life: last version runs without end",
	lateResync: "life: begins far behind", withSlack: "life: with height slack", withoutCheckpoint: "life: without checkpoint file", withMigration: "life: with migrations",
}

func (f fault) String() string { return faultNames[f] }

// fault draws whether f happens at this opportunity. Faults are finite: when the life has used up its budget the world
// is calm, and the sequence has to come to its end.
func (w *world) fault(f fault, chance float64) bool {
	if w.budget <= 0 || w.rng.Float64() >= chance*w.heat {
		return false
	}
	w.budget--
	w.count(f)
	return true
}

// trait draws a habit that does no harm and so costs nothing.
func (w *world) trait(f fault, chance float64) bool {
	if w.rng.Float64() >= chance {
		return false
	}
	w.count(f)
	return true
}

func (w *world) count(f fault) { w.counts[f]++ }
