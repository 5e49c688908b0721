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
	signalDropped
	signalNotDelivered
	notDelivered
	lockRemoved

	diskTempFails
	diskSyncFails
	diskRenameFails
	diskDirSyncFails
	diskFull
	diskSlow
	diskIsSlow
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
	emergencyStop
	planGrownInFront
	patchRelease
	binaryReplaced

	startRefused
	startShort
	startTriedAgain
	filesMissing
	configUnreadable
	sweepFails
	leftoverLeft
	leftoverStubborn
	leftoverSlow
	leftoverForks
	leftoverNamed
	leftoverKilledByUs
	nodeOutlives
	migrationOutlives
	leftoverOutlives
	deathSignalCleared
	shellDies
	shellKilled
	waitsForLock
	waitsForDirectory
	waitsForRecord
	waitsForNothing
	powerCutWaiting
	operatorStops
	operatorKills
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
	nodeForeign
	nodeKilled
	nodeKilledByUs
	stateDamaged
	stateDamagedInResync
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
	migrationWorker
	migrationSpared
	workerLate

	repairSet
	repairRestore
	repairAnew
	repairFiles
	repairPlan
	lateImage
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
	notProcess1
	behindShell
	withMigration

	undoMade
	undoNone
	undoUnreadable
	undoForgotten
	copyFails
	copyCutShort
	copyTakesLong
	putBack
	putBackFails
	putBackFinished
	powerCutLostExchange
	migrationUndone
	lostUnseen
	undoneByHand
	undoDropped
	held
	holdPlaced
	holdGarbage
	restoredUnderHold
	heldStartWouldFail
	hookRuns
	hookFails
	hookKilled
	hookRestores
	hookSpared
	planRetired
	repairImage
	repairUnretire
	patchTakenBack
	brokenPatch
	badRelease
	badReleaseOpens
	withUndo
	withHook

	faultCount
)

var faultNames = [faultCount]string{
	killAtStep: "entrypoint killed at a step", killAtTime: "entrypoint killed at a moment",
	powerCutAtStep: "power cut at a step", powerCutAtTime: "power cut at a moment",
	powerCutLostRename:    "power cut brought an old file back",
	powerCutLostMigration: "power cut lost what a migration wrote", signalAtStep: "signal at a step",
	signalAtTime: "signal at a moment", stopSignal: "stop signal", otherSignal: "other signal",
	secondStop: "second stop signal", orchestratorKill: "killed for not stopping",
	probeStop: "stopped by the liveness probe", signalDropped: "log: signal dropped", signalNotDelivered: "log: signal not delivered",
	notDelivered: "signal not delivered", lockRemoved: "people: lock file removed",

	diskTempFails: "disk: temporary file fails", diskSyncFails: "disk: fsync fails",
	diskRenameFails: "disk: rename fails", diskDirSyncFails: "disk: fsync of the directory fails",
	diskFull: "disk: full for a while", diskSlow: "disk: slow write", diskIsSlow: "log: disk is slow", stateSyncFails: "disk: sync of the state fails",
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
	planMixedUp: "plan: binaries mixed up", planMoved: "plan: binaries moved", planGrown: "plan: grown after its end", emergencyStop: "operator: emergency stop",
	planGrownInFront: "plan: entry inserted in front", patchRelease: "plan: patch release",
	binaryReplaced: "binary replaced during a run",

	startRefused: "program not executable", startShort: "out of processes for a while", startTriedAgain: "log: start is tried again",
	filesMissing: "files missing", configUnreadable: "config unreadable",
	sweepFails: "leftover cannot be ended", leftoverLeft: "process left behind",
	leftoverStubborn: "process left behind ignores SIGTERM", leftoverSlow: "process left behind takes long",
	leftoverForks: "process left behind leaves another one", leftoverNamed: "log: leftover processes still run",
	leftoverKilledByUs: "log: killing leftover processes", nodeOutlives: "entrypoint dead: its node gets SIGTERM",
	migrationOutlives: "entrypoint dead: its migration keeps running", leftoverOutlives: "entrypoint dead: a leftover keeps running",
	deathSignalCleared: "entrypoint dead: its node does not notice", shellDies: "entrypoint dead: the shell of its node dies",
	shellKilled: "shell of a node killed", waitsForLock: "entrypoint waits for the lock file",
	waitsForDirectory: "entrypoint waits for the directory's lock", waitsForRecord: "entrypoint waits for the recorded child",
	waitsForNothing: "operator waits, nothing else would", powerCutWaiting: "power cut while an entrypoint waits",
	operatorStops: "operator: leftover stopped", operatorKills: "operator: leftover killed", stranger: "stranger answers on the port",
	strangerTakesPort: "stranger holds the port",

	nodeCrashStarting: "node: crash in start-up", nodeCrash: "node: crash",
	nodeKilledBySignal: "node: killed by a fault signal", nodeOutOfMemory: "node: SIGKILL from outside",
	leaderRestart: "node: restart as leader", leaderRestartAtStop: "node: restart as leader at soft = stop",
	leaderBeforeCheck: "node: exit 0 before its height check", nodeHangs: "node: hangs",
	nodeHangsStarting: "node: hangs in start-up", nodeIgnoresTerm: "node: ignores SIGTERM",
	slowShutdown: "node: slow shutdown", overrun: "node: overrun", httpAbsent: "http: absent", httpNull: "http: null",
	httpGarbage: "http: garbage", httpHangs: "http: hangs", httpBehind: "http: a height that is too low",
	slowStart: "node: slow start", stderrNoise: "node: noise on stderr", heldQuery: "http: open query holds the exit",
	nodeForeign: "node: changes its user", nodeKilled: "node: killed at work", nodeKilledByUs: "log: killing the node",
	stateDamaged: "node: killed, and its state damaged", stateDamagedInResync: "node: killed in a resync, and its state damaged", damageSeen: "node: says that its state is damaged",
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
	migrationWorker: "migration leaves its work to a worker", migrationSpared: "log: the migration is not interrupted",
	workerLate: "worker takes longer than allowed",

	repairSet:     "operator: checkpoint set",
	repairRestore: "operator: state restored", repairAnew: "operator: starts anew", repairFiles: "operator: files fixed",
	repairPlan: "operator: plan put back", lateImage: "plan: late image after an emergency stop", repairLater: "operator: the fork comes later",
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
	notProcess1: "life: not process 1", behindShell: "release: behind a shell", withMigration: "life: with migrations",

	undoMade:             "log: undo point made",
	undoNone:             "undo: none is to be had",
	undoUnreadable:       "undo: not readable, once",
	undoForgotten:        "undo: incomplete copy forgotten",
	copyFails:            "undo: copy fails",
	copyCutShort:         "undo: copy cut short by a stop",
	copyTakesLong:        "log: state is being copied",
	putBack:              "undo: put back",
	putBackFails:         "undo: putting back fails",
	putBackFinished:      "undo: putting back finished by a later start",
	powerCutLostExchange: "power cut took an exchange back",
	migrationUndone:      "log: migration was interrupted, and is undone",
	lostUnseen:           "undo: blocks of a moment lost that nobody saw",
	undoneByHand:         "people: entrypoint undo",
	undoDropped:          "people: undo point dropped",
	held:                 "log: held",
	holdPlaced:           "people: hold",
	holdGarbage:          "people: garbage in the hold file",
	restoredUnderHold:    "people: state restored under a hold",
	heldStartWouldFail:   "log: start would fail",
	hookRuns:             "hook: runs",
	hookFails:            "hook: fails",
	hookKilled:           "hook: killed",
	hookRestores:         "hook: restores an older state",
	hookSpared:           "log: the hook is not interrupted",
	planRetired:          "plan: versions retired",
	repairImage:          "operator: image fixed",
	patchTakenBack:       "operator: patch taken back",
	repairUnretire:       "operator: last image with a retired version",
	badRelease:           "release: cannot read the format before it",
	badReleaseOpens:      "node: destroys the format before it",
	brokenPatch:          "plan: patch that does not start",
	withUndo:             "life: with undo points",
	withHook:             "release: with a hook",
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
