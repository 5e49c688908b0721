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
	powerCutLostMigration
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
	stateSyncFails
	keepFails
	loadFails

	checkpointLost
	checkpointForeign
	checkpointReference
	referenceMoved
	checkpointRestored
	stateRestored
	volumeRestored
	replicaCopied
	replicaWithoutStamp
	stampLost
	stampForeign
	stateWiped
	stateSwapped
	stateWipedBetween
	storageForgotten
	storageNamed
	storageElsewhere

	planLate
	planChanged
	planLostFirst
	planLostLast
	planLostMigration
	planGotMigration
	planMoved
	planMixedUp
	planGrown
	planGrownInFront
	patchRelease
	binaryReplaced

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
	leaderBeforeCheck
	nodeHangs
	nodeHangsStarting
	nodeIgnoresTerm
	slowShutdown
	overrun
	httpAbsent
	httpNull
	httpGarbage
	httpHangs
	httpBehind
	slowStart
	stderrNoise
	heldQuery
	stateDamaged
	damageSeen
	unusualNode

	questionAsked
	answerInPieces
	answerLate
	questionTakesLong
	cameUpAsked
	attack
	heightAsked
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
	repairAnew
	repairFiles
	repairPlan
	repairLater
	repairNeverAsk
	halted

	heightConfirmed
	cannotBeAsked
	restartInPlace
	versionCompleted
	completeBySlack
	stateStamped
	checkpointInterrupted
	checkpointCorrected
	checkpointKept
	checkpointNotWritten
	recordNotWritten
	binaryChanged
	migrationAgain
	preflightProblem
	nodeStopped

	finished
	finishedWaiting
	endlessReached
	lateResync
	withSlack
	withoutCheckpoint
	nameless
	attackedLife
	withMigration

	faultCount
)

var faultNames = [faultCount]string{
	killAtStep: "entrypoint killed at a step", killAtTime: "entrypoint killed at a moment",
	powerCutAtStep: "power cut at a step", powerCutAtTime: "power cut at a moment",
	powerCutLostRename:    "power cut brought an old file back",
	powerCutLostMigration: "power cut lost what a migration wrote", signalAtStep: "signal at a step",
	signalAtTime: "signal at a moment", stopSignal: "stop signal", otherSignal: "other signal",
	secondStop: "second stop signal", orchestratorKill: "killed for not stopping",
	probeStop: "stopped by the liveness probe",

	diskTempFails: "disk: temporary file fails", diskSyncFails: "disk: fsync fails",
	diskRenameFails: "disk: rename fails", diskDirSyncFails: "disk: fsync of the directory fails",
	diskFull: "disk: full for a while", diskSlow: "disk: slow write", stateSyncFails: "disk: sync of the state fails",
	keepFails: "disk: copy of the checkpoint fails", loadFails: "record not readable, once",

	checkpointLost: "people: checkpoint deleted", checkpointForeign: "people: checkpoint overwritten",
	checkpointReference: "people: checkpoint rewritten by the reference",
	referenceMoved:      "people: the reference ran a later version", checkpointRestored: "people: checkpoint restored alone",
	stateRestored: "people: state restored alone", volumeRestored: "people: volume restored",
	replicaCopied:       "people: state of another replica",
	replicaWithoutStamp: "people: state of another replica without its stamp", stampLost: "people: stamp deleted",
	stampForeign: "people: stamp torn", stateWiped: "people: state wiped",
	stateWipedBetween: "people: state wiped during a run", stateSwapped: "people: state replaced during a run",
	storageElsewhere: "people: configs lead to another directory", storageForgotten: "people: configs do not name the state once",
	storageNamed: "people: configs name the state from now on",

	planLate: "plan: deployed too late", planChanged: "plan: another stop height in time",
	planLostFirst: "plan: first entry lost", planLostLast: "plan: last entry lost",
	planLostMigration: "plan: migration lost", planGotMigration: "plan: migration added too late",
	planMixedUp: "plan: binaries mixed up", planMoved: "plan: binaries moved", planGrown: "plan: grown after its end",
	planGrownInFront: "plan: entry inserted in front", patchRelease: "plan: patch release",
	binaryReplaced: "binary replaced during a run",

	startRefused: "program not executable", filesMissing: "files missing", configUnreadable: "config unreadable",
	sweepFails: "leftover cannot be ended", leftover: "process left behind",
	leftoverStubborn: "process left behind ignores SIGTERM", stranger: "stranger answers on the port",
	strangerTakesPort: "stranger holds the port",

	nodeCrashStarting: "node: crash in start-up", nodeCrash: "node: crash",
	nodeKilledBySignal: "node: killed by a fault signal", nodeOutOfMemory: "node: SIGKILL from outside",
	leaderRestart: "node: restart as leader", leaderRestartAtStop: "node: restart as leader at soft = stop",
	leaderBeforeCheck: "node: exit 0 before its height check", nodeHangs: "node: hangs",
	nodeHangsStarting: "node: hangs in start-up", nodeIgnoresTerm: "node: ignores SIGTERM",
	slowShutdown: "node: slow shutdown", overrun: "node: overrun", httpAbsent: "http: absent", httpNull: "http: null",
	httpGarbage: "http: garbage", httpHangs: "http: hangs", httpBehind: "http: a height that is too low",
	slowStart: "node: slow start", stderrNoise: "node: noise on stderr", heldQuery: "http: open query holds the exit",
	stateDamaged: "node: killed, and its state damaged", damageSeen: "node: says that its state is damaged",
	unusualNode: "node: cannot be asked",

	questionAsked: "question: asked", answerInPieces: "question: answer in pieces",
	answerLate: "question: answer comes late", questionTakesLong: "question: takes long",
	cameUpAsked: "question: the node came up", attack: "attacker wrote a refusal",
	refusedStop: "node refused: stop height reached", refusedStopBeyond: "node refused: beyond the stop height",
	refusedStart: "node refused: start height", termWhileStarting: "node killed by a signal in start-up",

	migrationKilledClean: "migration killed before it wrote", migrationKilledHalf: "migration killed half-way",
	migrationKilledDone: "migration killed when done", migrationFailsClean: "migration fails at once",
	migrationFailsHalf: "migration fails half-way", migrationRefusesAgain: "migration refuses a second run",
	migrationRerun: "migration run again when done", migrationResumed: "migration resumed",

	repairSet:     "operator: checkpoint set",
	repairRestore: "operator: state restored", repairAnew: "operator: starts anew", repairFiles: "operator: files fixed",
	repairPlan: "operator: plan put back", repairLater: "operator: the fork comes later",
	repairNeverAsk: "operator: node not asked any more", halted: "halted on an interrupted migration",

	heightConfirmed: "log: height confirmed", cannotBeAsked: "log: node cannot be asked",
	restartInPlace: "log: restart in place", versionCompleted: "log: version completed",
	completeBySlack: "log: complete by the height slack", stateStamped: "log: state stamped",
	checkpointInterrupted: "log: checkpoint was interrupted", checkpointCorrected: "log: checkpoint corrected",
	checkpointKept: "log: old checkpoint kept", checkpointNotWritten: "log: checkpoint not written",
	recordNotWritten: "log: end of a migration not written", binaryChanged: "log: binary changed",
	migrationAgain: "log: migration is run again", preflightProblem: "log: preflight problem",
	nodeStopped: "log: node stopped",

	finished: "life: finished", finishedWaiting: "life: finished, waits",
	endlessReached: "life: last version runs without end", lateResync: "life: begins far behind",
	withSlack: "life: with height slack", withoutCheckpoint: "life: without checkpoint file",
	nameless: "life: no config names the state", attackedLife: "life: with an attacker",
	withMigration: "life: with migrations",
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
