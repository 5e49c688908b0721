// Package checkpoint is the record on disk: the stamp in the storage directory, which says whose format the state has,
// and the checkpoint, which follows it. It reads both strictly, so that a torn, empty or foreign file is an error and
// never a guess; it replaces both durably, so that a kill or a power cut leaves the old file or the new one, whole; and
// it holds the lock beside the checkpoint. It knows nothing of plans, and decides nothing.
package checkpoint
