package dockertest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/test/dockertest"
)

const docsPage = "../../docs/images.md"

// code is a block of a page: shell commands or, if it has a name, the file of that name.
type code struct{ name, text string }

var namesFile = regexp.MustCompile("`([^`]+)`:\\s*$")

// codeOf returns the blocks of a page in Markdown: indented ones are shell commands, and fenced ones are files, each
// with its name in the line before.
func codeOf(page string) []code {
	var blocks []code
	var before string
	lines := strings.Split(page, "\n")
	for i := 0; i < len(lines); i++ {
		switch line := lines[i]; {
		case strings.HasPrefix(line, "```"):
			var text string
			for i++; !strings.HasPrefix(lines[i], "```"); i++ {
				text += lines[i] + "\n"
			}
			block := code{text: text}
			if match := namesFile.FindStringSubmatch(before); match != nil {
				block.name = match[1]
				blocks = append(blocks, block)
			}
		case strings.HasPrefix(line, "    ") && strings.TrimSpace(line) != "":
			blocks = append(blocks, code{text: strings.TrimPrefix(line, "    ") + "\n"})
		case strings.TrimSpace(line) != "":
			before = line
		}
	}
	return blocks
}

// prelude adapts the page's commands to a test: it sets where modules come from, and the version with which the
// builder's cache has everything already. A command in a container that has just started is repeated until it works.
// Buildx may be a program of its own.
const prelude = `set -eu
docker() {
	case "$1" in
	build) shift; command docker build --build-arg GOPROXY="$GOPROXY" --build-arg VERSION="$VERSION" "$@" ;;
	buildx) shift; "$BUILDX" "$@" ;;
	exec) until command docker "$@"; do [ "$(command docker inspect -f '{{.State.Status}}' "$2")" = running ]; sleep 0.2; done ;;
	*) command docker "$@" ;;
	esac
}
set -x
`

func TestEachCommandOfTheImagesPageWorks(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		dockertest.Missing(t, "the page changes the owner of a folder, which only root can")
	}
	page, err := os.ReadFile(docsPage)
	require.NoError(t, err)
	// A user of this machine may have things of the page's names.
	prefix := dockertest.Name()
	names := strings.NewReplacer(
		"rollup-testnet", dockertest.Testnet(t), "ENTRYPOINT=rollup-entrypoint", "ENTRYPOINT="+dockertest.Entrypoint(t),
		"-t rollup-entrypoint", "-t "+prefix+"-program", "tags=rollup-entrypoint", "tags="+prefix+"-program",
		"my-rollup", prefix+"-rollup", "my-node", prefix+"-node", "rollup-data", prefix+"-data", "demo", prefix+"-demo",
	)
	dir := t.TempDir()
	chain := filepath.Join(dir, "chain")
	require.NoError(t, os.Symlink(dockertest.Root(t), filepath.Join(dir, "rollup-entrypoint")))
	writeChain(t, chain)
	tagNodes(t, prefix)
	cleanUpPage(t, prefix)

	script := prelude
	for _, block := range codeOf(string(page)) {
		if block.name != "" {
			require.NoError(t, os.WriteFile(filepath.Join(chain, block.name), []byte(names.Replace(block.text)), 0o644))
			continue
		}
		script += names.Replace(block.text)
	}
	result := dockertest.Command{
		Name: "sh", Dir: dir, Timeout: 25 * time.Minute,
		Env: []string{
			"IMAGE=" + dockertest.Entrypoint(t), "TESTNET_IMAGE=" + dockertest.Testnet(t), "VERSION=v0.0.0-dockertest",
			"SOURCE_DATE_EPOCH=0", "GOPROXY=" + goEnv(t, "GOPROXY"), "BUILDX=" + buildx(t),
		},
	}.Do(t, "-c", script)
	require.Zero(t, result.Code, result.Both)
	for _, expected := range []string{"chain  rollup-entrypoint", "v1/migration", `{ "start_height": 1001 }`} {
		assert.Contains(t, strings.ReplaceAll(result.Out, "chain\n", "chain  "), expected, "as the page shows it")
	}
	for _, layer := range dockertest.InspectImage(t, prefix+"-rollup:1").RootFS.Layers {
		assert.Contains(t, dockertest.InspectImage(t, prefix+"-rollup:2").RootFS.Layers, layer)
	}
	assert.Equal(t, "arm64", dockertest.InspectImage(t, prefix+"-program:arm64").Architecture)
}

// writeChain writes the folder of a chain, which is so slow that the page's fork is still to come when it is prepared.
func writeChain(t *testing.T, dir string) {
	t.Helper()
	files := rollupFiles(t)
	delete(files, "Dockerfile") // the page copies it
	for version, stateVersion := range map[string]int{"v0": 0, "v1": 1, "v2": 1} {
		files[version+"/config.toml"] = strings.ReplaceAll(nodeConfig(version, stateVersion), "100ms", "1s")
	}
	files["v2/version.json"] = "{ \"start_height\": 1001 }\n"
	require.NoError(t, files.Write(dir))
}

// tagNodes gives the image of each version's node the page's name.
func tagNodes(t *testing.T, prefix string) {
	t.Helper()
	for _, version := range []string{"v0", "v1", "v2"} {
		image := prefix + "-node:" + version
		dockertest.Docker(t, "tag", nodeImage(t, version), image)
		dockertest.RemoveLater(t, image)
	}
}

// cleanUpPage removes after the test what the page's commands have made.
func cleanUpPage(t *testing.T, prefix string) {
	t.Cleanup(func() {
		for _, name := range []string{"-rollup", "-demo"} {
			dockertest.TryDocker(t, "rm", "-f", "-v", prefix+name)
		}
		dockertest.TryDocker(t, "volume", "rm", "-f", prefix+"-data", prefix+"-demo")
		for _, image := range []string{"-rollup:2", "-rollup:1", "-program", "-program:arm64", "-baked"} {
			dockertest.TryDocker(t, "image", "rm", "-f", "--no-prune", prefix+image)
		}
	})
}

// The page's commands are tested, so README.md must have the same ones.
func TestCommandsOfTheReadmeAreThoseOfTheImagesPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(docsPage)
	require.NoError(t, err)
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	tried := commandsOf(string(page))
	var found int
	for _, command := range commandsOf(string(readme)) {
		if strings.HasPrefix(command, "docker ") || strings.Contains(command, "../rollup-entrypoint") {
			found++
			assert.Contains(t, tried, command)
		}
	}
	assert.Greater(t, found, 5)
}

// commandsOf lists the commands in the indented blocks of a page, each on one line.
func commandsOf(page string) []string {
	var text string
	for _, block := range codeOf(page) {
		if block.name == "" {
			text += block.text
		}
	}
	var commands []string
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		commands = append(commands, strings.Join(strings.Fields(line), " "))
	}
	return commands
}
