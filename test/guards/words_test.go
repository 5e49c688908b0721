package guards

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	// bannedWords are habits that made the texts read like a translation: a node "told a height", a file "stands" or
	// "lies" somewhere, a run "goes on", "say '--force'". Words wrap, so a space may be a line break.
	bannedWords = regexp.MustCompile("(?i)\\b(?:told|tells|mend(?:s|ed|ing)?|whoever|stands|lies|goes\\s+on)\\b|\\bsay\\s+['`‘“\"]")
	// properSenses are the whole phrases in which a banned word is the right one: something gives a false answer.
	properSenses = regexp.MustCompile(`(?i)\b(?:node that lies[.:]|disk that lies about its flushes)`)
)

// docs/flags.md has the help of every command of the entrypoint, which a test of its package compares.
func TestTextsHaveNoBannedWords(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	require.NoError(t, err)
	require.Contains(t, pages, filepath.Join(root, "docs", "flags.md"))
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		findBannedWords(t, strings.TrimPrefix(page, root+"/"), string(text))
	}
	makeHelp, err := exec.Command("make", "--no-print-directory", "-C", root, "help").CombinedOutput()
	require.NoError(t, err, "%s", makeHelp)
	findBannedWords(t, "make help", string(makeHelp))
	for _, main := range golist(t, "-f", `{{if eq .Name "main"}}{{.ImportPath}}{{end}}`, "./cmd/...", "./compose/...") {
		help, err := goCommand("run", "-tags", makeVariable("GO_TAGS"), main, "--help").CombinedOutput()
		require.Contains(t, string(help), "--", "%s --help: %v", main, err)
		findBannedWords(t, strings.TrimPrefix(main, module)+" --help", string(help))
	}
}

// findBannedWords fails the test for each banned word in a text, with the line that it begins on.
func findBannedWords(t *testing.T, name, text string) {
	t.Helper()
	text = properSenses.ReplaceAllStringFunc(text, func(phrase string) string { return strings.Repeat("-", len(phrase)) })
	for _, at := range bannedWords.FindAllStringIndex(text, -1) {
		begin := strings.LastIndexByte(text[:at[0]], '\n') + 1
		line, _, _ := strings.Cut(text[begin:], "\n")
		t.Errorf("%s:%d: %q: %s", name, strings.Count(text[:begin], "\n")+1, text[at[0]:at[1]], strings.TrimSpace(line))
	}
}
