package dockertest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/test/dockertest"
)

// nodeConfig is the config of a stand-in node with its state on the volume, ten blocks a second; more keys of [mock]
// may follow.
func nodeConfig(label string, stateVersion int) string {
	return fmt.Sprintf(`storage.path = "/data/state"
runner.http_config = { bind_host = "127.0.0.1", bind_port = 12346 }
mock.label = %q
mock.state_version = %d
mock.da = { file = "/data/da.json", block_time = "100ms" }
`, label, stateVersion)
}

// nodeImage returns an image as a chain publishes it for a version, with the node at /app/rollup.
func nodeImage(t *testing.T, version string) string {
	t.Helper()
	return dockertest.Build(t, dockertest.Files{
		"Dockerfile": "FROM scratch\nCOPY --from=" + dockertest.Testnet(t) + " /opt/rollup/versions/" + version + "/rollup /app/rollup\n",
	})
}

func template(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../images/rollup.Dockerfile")
	require.NoError(t, err)
	return string(text)
}

// rollupFiles returns the folder that the template needs: v0 up to height 20, and v1.
func rollupFiles(t *testing.T) dockertest.Files {
	t.Helper()
	return dockertest.Files{
		"Dockerfile":      template(t),
		"v0/config.toml":  nodeConfig("v0", 0),
		"v0/version.json": `{"stop_height": 20}`,
		"v1/config.toml":  nodeConfig("v1", 1),
		"v1/version.json": `{"start_height": 21}`,
		"v1/migration*":   "#!/bin/sh\nexec /opt/rollup/versions/v1/rollup migrate \"$@\"\n",
	}
}

func rollupArgs(t *testing.T) []string {
	t.Helper()
	return []string{
		"--build-arg", "ENTRYPOINT=" + dockertest.Entrypoint(t),
		"--build-arg", "V0=" + nodeImage(t, "v0"), "--build-arg", "V1=" + nodeImage(t, "v1"),
	}
}

// In the old image v1 has no stop height. The new image is built on the old one and adds the stop height and v2.
func TestVersionIsAddedToAPublishedImage(t *testing.T) {
	t.Parallel()
	old := dockertest.Build(t, rollupFiles(t), rollupArgs(t)...)
	volume := dockertest.Volume(t)
	before := dockertest.Run(t, "-v", volume+":/data", old)
	before.WaitEvent("migration finished", "version", 1, "exit_code", 0)
	before.WaitEvent("version started", "version", 1, "stop_height", 0)
	before.WaitEvent("height known", "version", 1)
	before.Stop()
	require.Zero(t, before.WaitExit())

	stop := height(t, volume) + 20
	next := dockertest.Build(t, dockertest.Files{
		"Dockerfile": "FROM " + old + "\nCOPY v2/ /opt/rollup/versions/v2/\nCOPY --from=" + nodeImage(t, "v2") + " /app/rollup /opt/rollup/versions/v2/\n" +
			"USER 0:0\nRUN [\"/entrypoint\", \"manifest\", \"write\"]\nUSER 65532:65532\n",
		"v2/config.toml":  nodeConfig("v2", 1),
		"v2/version.json": fmt.Sprintf(`{"start_height": %d}`, stop+1),
	})
	oldLayers, newLayers := dockertest.InspectImage(t, old).RootFS.Layers, dockertest.InspectImage(t, next).RootFS.Layers
	require.Greater(t, len(newLayers), len(oldLayers))
	assert.Equal(t, oldLayers, newLayers[:len(oldLayers)], "a host that has the old image only fetches what is new")

	verified := dockertest.Once(t, next, "manifest", "verify")
	assert.Zero(t, verified.Code, verified.Both)

	after := dockertest.Run(t, "-v", volume+":/data", next)
	after.WaitEvent("version started", "version", 1, "stop_height", stop, "asserts_start_height", false)
	after.WaitEvent("version completed", "version", 1, "height", stop)
	after.WaitEvent("version started", "version", 2, "start_height", stop+1)
	after.WaitEvent("height known", "version", 2)
	assert.Empty(t, after.Events("migration started"), "it has run")
	after.Stop()
	assert.Zero(t, after.WaitExit())
	assert.Contains(t, after.ReadFile("/data/checkpoint.json"), `"version_index": 2`)
	assert.Greater(t, height(t, volume), stop)
}

// height reads the durable height from a volume that no container uses.
func height(t *testing.T, volume string) uint64 {
	t.Helper()
	result := dockertest.Once(t, "-v", volume+":/data", "--entrypoint", "/opt/rollup/versions/v0/rollup", dockertest.Testnet(t),
		"inspect", "--dir", "/data/state")
	require.Zero(t, result.Code, result.Both)
	var state struct{ Height uint64 }
	require.NoError(t, json.Unmarshal([]byte(result.Out), &state), result.Out)
	return state.Height
}

// The versions before the edited one are reused from the builder's cache, or give the same layers.
func TestVersionMoreInTheTemplateLeavesTheLayersBeforeIt(t *testing.T) {
	t.Parallel()
	files, args := rollupFiles(t), rollupArgs(t)
	first := dockertest.InspectImage(t, dockertest.Build(t, files, args...)).RootFS.Layers
	files["v1/config.toml"] += "# another release of v1\n"
	second := dockertest.InspectImage(t, dockertest.Build(t, files, args...)).RootFS.Layers
	require.Len(t, second, len(first))
	// Those of the base, then the volume's, v0's, v1's, the entrypoint's and the manifest's.
	require.GreaterOrEqual(t, len(first), 6)
	changed := len(first) - 3
	assert.Equal(t, first[:changed], second[:changed])
	assert.NotEqual(t, first[changed], second[changed])
}

// A kubelet and Prometheus ask from outside the container. The commands in it need no flag for the same address.
func TestTemplateServesItsStatusToTheOutside(t *testing.T) {
	t.Parallel()
	image := dockertest.Build(t, rollupFiles(t), rollupArgs(t)...)
	assert.Contains(t, dockertest.InspectImage(t, image).Config.Env, "ENTRYPOINT_LISTEN=:9848")
	c := dockertest.Run(t, "-p", "127.0.0.1::9848", image)
	c.WaitEvent("status served", "address", "[::]:9848")
	c.WaitEvent("height known", "version", 0)
	for _, route := range []string{"/healthz", "/metrics"} {
		answer, err := http.Get("http://" + c.Address("9848") + route)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		assert.Equal(t, http.StatusOK, answer.StatusCode, route)
	}
	c.WaitHealth("healthy")
	for _, args := range [][]string{{"status"}, {"healthcheck"}} {
		result := c.Exec(append([]string{"/entrypoint"}, args...)...)
		assert.Zero(t, result.Code, result.Both)
	}
	assert.Empty(t, c.Events("status served on the loopback address in Kubernetes"))
	c.Stop()
	assert.Zero(t, c.WaitExit())

	local := dockertest.Run(t, "-e", "ENTRYPOINT_LISTEN=127.0.0.1:9848", "-e", "KUBERNETES_SERVICE_HOST=10.96.0.1", image)
	local.WaitEvent("status served on the loopback address in Kubernetes", "address", "127.0.0.1:9848")
	local.Stop()
	assert.Zero(t, local.WaitExit())
}

// Real nodes are programs for glibc. If a base lacks the loader, the kernel reports that a file does not exist.
func TestBaseOfTheImageHasWhatANodeNeeds(t *testing.T) {
	t.Parallel()
	args := rollupArgs(t)
	for _, row := range []struct {
		base string
		code int
		want string
	}{
		{"debian:bookworm-slim", 0, ""},
		{"gcr.io/distroless/cc-debian12:nonroot", 0, ""},
		{"scratch", 78, "needs the dynamic loader"},
	} {
		files := rollupFiles(t)
		delete(files, "v1/migration*")
		const line = "COPY v1/ /opt/rollup/versions/v1/\n"
		require.Contains(t, files["Dockerfile"], line)
		files["Dockerfile"] = strings.Replace(files["Dockerfile"], line, line+"COPY --from=debian:bookworm-slim /usr/bin/true /opt/rollup/versions/v1/migration\n", 1)
		image := dockertest.Build(t, files, append([]string{"--build-arg", "BASE=" + row.base}, args...)...)
		result := dockertest.Once(t, image, "check")
		assert.Equal(t, row.code, result.Code, "%s: %s", row.base, result.Both)
		bare := dockertest.Once(t, "--entrypoint", "/opt/rollup/versions/v1/migration", image)
		if row.want == "" {
			assert.Zero(t, bare.Code, "%s: %s", row.base, bare.Both)
			continue
		}
		text := strings.Join(strings.Fields(result.Out), " ")
		assert.Contains(t, text, row.want)
		assert.Contains(t, text, "no such file or directory")
		// Docker reports no more than this.
		assert.NotZero(t, bare.Code)
		assert.Contains(t, bare.Err, "no such file or directory")
	}
}

func TestTemplateIsBuiltByBuildKitToo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, rollupFiles(t).Write(dir))
	builder := dockertest.BuildKit(t)
	name := dockertest.Name()
	builder.Must(t, append(append([]string{"build", "-t", name}, rollupArgs(t)...), dir)...)
	dockertest.RemoveLater(t, name)
	assert.Zero(t, dockertest.Once(t, name, "check").Code)
}
