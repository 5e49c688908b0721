package sequencer

// AdoptVersion gives the checkpoint that puts the sequence at version i of the plan, by the operator's word. migrated
// says that the migration of that version, where it has one, has completed. old is the checkpoint so far, nil for none:
// what it knows of earlier versions is kept. digest may be empty.
//
// The word is not taken on trust: a node asserts its start height, and a migration that is due makes the version before
// prove its stop height first.
func AdoptVersion(plan *Plan, old *Checkpoint, i int, migrated bool, digest string) (Checkpoint, error) {
	if i < 0 || i > plan.Last() {
		return Checkpoint{}, failf(CodeMismatch, "there is no version %d: %s has versions 0 to %d", i, plan.File, plan.Last()).
			safe("the checkpoint is unchanged").next("name one of these")
	}
	v := plan.Versions[i]
	c := Checkpoint{VersionIndex: i, BinaryPath: v.Binary, BinarySHA256: digest, Phase: PhaseRunning, MigrationCompleted: migrated && v.Migration != ""}
	c.Started = i == 0 // the first version has no start height to assert, and its state is known by the operator's word
	if v.Migration != "" && !migrated {
		c.Phase = PhaseMigrating
	}
	if old == nil {
		return c, nil
	}
	for _, done := range old.History {
		// A state that was restored may be below the height that was once proven: a migration that is due has it proven
		// anew.
		if done.VersionIndex < i-1 || done.VersionIndex == i-1 && c.Phase != PhaseMigrating {
			c.History = append(c.History, done)
		}
	}
	return c, nil
}
