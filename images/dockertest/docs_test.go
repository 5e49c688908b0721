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

	"rollup-entrypoint/images/dockertest"
)

const docsPage = "../../docs/images.md"

// code is a block of a page: lines of a shell, or with a name the file that they are.
type code struct{ name, text string }

var namesFile = regexp.MustCompile("`([^`]+)`:\\s*$")

// codeOf returns the blocks of a page in Markdown: indented ones are for a shell, and fenced ones are files whose names
// stand before them.
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

// prelude changes what the page's commands cannot know of a test. Where modules come from, and the version with which
// everything is in the builder's cache already. A container that has just been started is asked again until it answers.
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
		dockertest.Missing(t, "the page gives a folder to another user, which only root can")
	}
	page, err := os.ReadFile(docsPage)
	require.NoError(t, err)
	// A user of this machine may have things of these names.
	prefix := dockertest.Name()
	names := strings.NewReplacer(
		"rollup-testnet", dockertest.Testnet(t), "ENTRYPOINT=rollup-entrypoint", "ENTRYPOINT="+dockertest.Entrypoint(t),
		"-t rollup-entrypoint", "-t "+prefix+"-program", "tags=rollup-entrypoint", "tags="+prefix+"-program", "my-rollup", prefix+"-rollup", "my-node", prefix+"-node",
		"rollup-data", prefix+"-data", "demo", prefix+"-demo",
	)
	dir := t.TempDir()
	chain := filepath.Join(dir, "chain")
	require.NoError(t, os.Symlink(dockertest.Root(t), filepath.Join(dir, "rollup-entrypoint")))
	files := rollupFiles(t)
	delete(files, "Dockerfile") // the page copies it
	// Slow enough that the fork of the page is still to come when it is prepared.
	for _, version := range []string{"v0", "v1", "v2"} {
		stateVersion := 1
		if version == "v0" {
			stateVersion = 0
		}
		files[version+"/config.toml"] = strings.ReplaceAll(nodeConfig(version, stateVersion), "100ms", "1s")
	}
	files["v2/version.json"] = "{ \"start_height\": 1001 }\n"
	require.NoError(t, files.Write(chain))
	for _, version := range []string{"v0", "v1", "v2"} {
		image := prefix + "-node:" + version
		dockertest.Docker(t, "tag", nodeImage(t, version), image)
		dockertest.RemoveLater(t, image)
	}
	t.Cleanup(func() {
		for _, name := range []string{"-rollup", "-demo"} {
			dockertest.TryDocker(t, "rm", "-f", "-v", prefix+name)
		}
		dockertest.TryDocker(t, "volume", "rm", "-f", prefix+"-data", prefix+"-demo")
		for _, image := range []string{"-rollup:2", "-rollup:1", "-program", "-program:arm64", "-baked"} {
			dockertest.TryDocker(t, "image", "rm", "-f", prefix+image)
		}
	})

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

// What README.md has of these commands is what that page has, which is tried.
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
