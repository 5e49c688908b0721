package sequencer

import "rollup-entrypoint/internal/strictjson"

// Suggest gives ` (did you mean "…"?)` for the known word that is nearest to word, or nothing if none is near.
func Suggest(word string, known []string) string { return strictjson.Suggest(word, known) }
