package dockertest_test

import (
	"archive/tar"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/test/dockertest"
)

func TestMain(m *testing.M) { os.Exit(dockertest.Main(m)) }

// buildArgs are those with which 'make image' builds the images for tests.
var buildArgs = []string{"--build-arg", "VERSION=v0.0.0-dockertest", "--build-arg", "SOURCE_DATE_EPOCH=0"}

// entrypointBudget is in bytes, uncompressed, as in the image.
const entrypointBudget = 7_800_000

// 'docker run -v demo:/data IMAGE' is all it takes: no flag, no user, no owner of the volume.
func TestTestnetUpgradesThroughThreeVersions(t *testing.T) {
	t.Parallel()
	c := dockertest.Run(t, "-v", dockertest.Volume(t)+":/data", dockertest.Testnet(t))
	c.WaitEvent("version completed", "version", 0, "height", 40)
	c.WaitEvent("migration finished", "version", 1, "exit_code", 0)
	c.WaitEvent("version completed", "version", 1, "height", 80)
	c.WaitEvent("version started", "version", 2)
	c.WaitEvent("height known", "version", 2)
	c.WaitHealth("healthy")
	c.Stop()
	require.Zero(t, c.WaitExit())
	assert.Contains(t, c.ReadFile("/data/checkpoint.json"), `"version_index": 2`)
}

func TestEntrypointImageIsOneSmallLayerThatRunsAlone(t *testing.T) {
	t.Parallel()
	name := dockertest.Entrypoint(t)
	files := filesOf(t, name)
	require.Contains(t, files, "entrypoint")
	assert.LessOrEqual(t, files["entrypoint"].Size, int64(entrypointBudget))
	assert.Equal(t, int64(0o755), files["entrypoint"].Mode&0o7777)
	assert.Zero(t, files["entrypoint"].Uid, "the user that runs it cannot change it")
	assert.Len(t, dockertest.InspectImage(t, name).RootFS.Layers, 1)

	result := dockertest.Once(t, "--read-only", "--cap-drop", "ALL", "--network", "none", name, "version")
	assert.Zero(t, result.Code, result.Both)
	assert.Contains(t, result.Out, "v0.0.0-dockertest")
}

func TestImagesSayHowTheyAreRun(t *testing.T) {
	t.Parallel()
	for title, name := range map[string]string{"rollup-entrypoint": dockertest.Entrypoint(t), "rollup-testnet": dockertest.Testnet(t)} {
		image := dockertest.InspectImage(t, name)
		assert.Equal(t, "65532:65532", image.Config.User)
		assert.Equal(t, "SIGTERM", image.Config.StopSignal)
		assert.Equal(t, []string{"/entrypoint"}, image.Config.Entrypoint)
		assert.Empty(t, image.Config.Cmd)
		// Without a shell in the image only the exec form works.
		require.NotNil(t, image.Config.Healthcheck)
		assert.Equal(t, []string{"CMD", "/entrypoint", "healthcheck"}, image.Config.Healthcheck.Test)
		labels := image.Config.Labels
		assert.Equal(t, title, labels["org.opencontainers.image.title"])
		assert.NotEmpty(t, labels["org.opencontainers.image.description"])
		assert.Equal(t, "Apache-2.0", labels["org.opencontainers.image.licenses"])
		assert.Equal(t, "v0.0.0-dockertest", labels["org.opencontainers.image.version"])
		assert.Equal(t, "1970-01-01T00:00:00Z", labels["org.opencontainers.image.created"])
		assert.Contains(t, labels, "org.opencontainers.image.revision")
	}
}

func TestVersionsAreLayersOfTheirOwnWithTheOldestFirst(t *testing.T) {
	t.Parallel()
	layers := layersOf(t, dockertest.Testnet(t))
	require.Len(t, layers, 5)
	for i, version := range []string{"v0", "v1", "v2"} {
		assert.Contains(t, layers[i], "opt/rollup/versions/"+version+"/rollup")
		for path := range layers[i] {
			assert.True(t, strings.HasPrefix("opt/rollup/versions/"+version, strings.TrimSuffix(path, "/")) ||
				strings.HasPrefix(path, "opt/rollup/versions/"+version+"/"), "layer %d has %s", i, path)
		}
	}
	assert.Contains(t, layers[3], "entrypoint")
	data := layers[4]["data/"]
	require.NotNil(t, data)
	assert.Equal(t, 65532, data.Uid)
	assert.Zero(t, data.Gid)
	assert.Equal(t, int64(0o775), data.Mode&0o777)
}

// The layers depend only on the source: not on the day, the builder or its cache. The config of an image has the time
// of its build, unless the builder knows SOURCE_DATE_EPOCH (BuildKit since 0.11, Docker since 23).
func TestTwoBuildsGiveTheSameLayers(t *testing.T) {
	t.Parallel()
	// The stage that compiles is the same for both, so it is only built anew for the first one.
	for _, file := range []string{"testnet", "entrypoint"} {
		first := map[string]string{"entrypoint": dockertest.Entrypoint(t), "testnet": dockertest.Testnet(t)}[file]
		want := dockertest.InspectImage(t, first)
		want.Config.WorkingDir, want.Config.Cmd = "/", nil
		for how, builder := range map[string]dockertest.Command{"legacy builder": dockertest.LegacyBuilder(), "BuildKit": dockertest.BuildKit(t)} {
			builder.Dir = dockertest.Root(t)
			name := dockertest.Name()
			args := append([]string{"build", "-f", "images/" + file + ".Dockerfile", "-t", name}, buildArgs...)
			if file == "testnet" {
				args = append(args, "--no-cache")
			}
			args = append(args, "--build-arg", "GOPROXY="+goEnv(t, "GOPROXY"), "--build-arg", "REVISION="+want.Config.Labels["org.opencontainers.image.revision"], ".")
			builder.Must(t, args...)
			dockertest.RemoveLater(t, name)
			have := dockertest.InspectImage(t, name)
			assert.Equal(t, want.RootFS.Layers, have.RootFS.Layers, "%s by the %s", file, how)
			// One builder leaves out what is not given, another one writes the default.
			if have.Config.WorkingDir == "" {
				have.Config.WorkingDir = "/"
			}
			have.Config.Cmd = nil
			assert.Equal(t, want.Config, have.Config, "%s by the %s", file, how)
		}
	}
}

func TestLayersHaveTheTimeThatTheBuildIsGiven(t *testing.T) {
	t.Parallel()
	for path, file := range filesOf(t, dockertest.Entrypoint(t)) {
		// The engine adds other files to those of a container.
		if path == "entrypoint" {
			assert.Equal(t, time.Unix(0, 0).UTC(), file.ModTime.UTC(), path)
		}
	}
	for _, layer := range layersOf(t, dockertest.Testnet(t)) {
		for path, file := range layer {
			assert.Equal(t, time.Unix(0, 0).UTC(), file.ModTime.UTC(), path)
		}
	}
}

// The state belongs to the container's user; the volume decides what others may do.
func TestNamedVolumeIsWritableForAnyUserOfGroup0(t *testing.T) {
	t.Parallel()
	volume := dockertest.Volume(t)
	// As OpenShift does it.
	c := dockertest.Run(t, "-v", volume+":/data", "--user", "1000690000:0", "--read-only", "--cap-drop", "ALL",
		"--security-opt", "no-new-privileges", dockertest.Testnet(t))
	c.WaitEvent("height known", "version", 0)
	c.Stop()
	assert.Zero(t, c.WaitExit())
}

// filesOf lists what is in an image, by path.
func filesOf(t *testing.T, image string) map[string]*tar.Header {
	t.Helper()
	c := dockertest.Create(t, image)
	return headers(t, dockertest.Docker(t, "export", c.Name))
}

// layersOf lists what is in each layer of an image, by path. A folder's path ends in a slash.
func layersOf(t *testing.T, image string) []map[string]*tar.Header {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "image.tar")
	dockertest.Docker(t, "save", "-o", archive, image)
	return savedLayers(t, archive)
}

func headers(t *testing.T, archive string) map[string]*tar.Header {
	t.Helper()
	found := map[string]*tar.Header{}
	for reader := tar.NewReader(strings.NewReader(archive)); ; {
		header, err := reader.Next()
		if err == io.EOF {
			return found
		}
		require.NoError(t, err)
		found[header.Name] = header
	}
}
