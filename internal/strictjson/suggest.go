package strictjson

import "fmt"

// Suggest gives ` (did you mean "…"?)` with the known word that is nearest to word, or nothing if none is near.
func Suggest(word string, known []string) string {
	best, distance := "", len(word)/2+1
	for _, k := range known {
		if d := editDistance(word, k); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// Misspelt gives ` "word" (did you mean "…"?)` if a known word is near, otherwise nothing: a word that is not nearly
// one of ours may be a secret in the wrong place, so it is not shown.
func Misspelt(word string, known []string) string {
	suggestion := Suggest(word, known)
	if suggestion == "" {
		return ""
	}
	return fmt.Sprintf(" %q%s", word, suggestion)
}

// editDistance is the Levenshtein distance in bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
