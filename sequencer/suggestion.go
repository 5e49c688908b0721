package sequencer

// Suggest gives ` (did you mean "…"?)` for the known word that is nearest to word, or nothing where none is near.
func Suggest(word string, known []string) string { return suggest(word, known) }
