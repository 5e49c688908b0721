// Package checkpoint is the record on disk: the stamp in the storage directory, which says which version's format the
// state has, and the checkpoint, which follows it. It reads both strictly, so that a torn, empty or foreign file is an
// error and never a guess. It replaces both durably, so that a kill or a power cut leaves the old file or the new one,
// whole. It takes the locks on checkpoint and state, waits for what a dead entrypoint left running, and holds the locks
// for as long as anything works on the state. Beside the checkpoint it keeps how the last run ended, for people. It knows
// nothing of plans, and decides nothing.
package checkpoint
