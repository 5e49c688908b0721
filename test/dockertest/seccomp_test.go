package dockertest_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/test/dockertest"
)

var update = flag.Bool("update", false, "write images/seccomp.json anew")

const (
	// dockersProfile is default.json of github.com/moby/profiles/seccomp v0.3.0. Engines before 25 have an older one
	// built in, which still permits io_uring.
	dockersProfile = "testdata/seccomp-default.json"
	ourProfile     = "../../images/seccomp.json"
)

var ioUring = []string{"io_uring_setup", "io_uring_enter", "io_uring_register"}

func TestOurSeccompProfileIsDockersAndThreeCalls(t *testing.T) {
	t.Parallel()
	docker, err := os.ReadFile(dockersProfile)
	require.NoError(t, err)
	for _, call := range ioUring {
		require.NotContains(t, string(docker), call)
	}
	rules := strings.LastIndex(string(docker), "\n\t]")
	want := string(docker[:rules]) + ",\n\t\t{\n\t\t\t\"names\": [\n\t\t\t\t\"" + strings.Join(ioUring, "\",\n\t\t\t\t\"") +
		"\"\n\t\t\t],\n\t\t\t\"action\": \"SCMP_ACT_ALLOW\"\n\t\t}" + strings.TrimSuffix(string(docker[rules:]), "\n") + "\n"
	require.True(t, json.Valid([]byte(want)))
	if *update {
		require.NoError(t, os.WriteFile(ourProfile, []byte(want), 0o644))
	}
	have, err := os.ReadFile(ourProfile)
	require.NoError(t, err)
	assert.Equal(t, want, string(have), "run: DOCKER_TESTS=1 go test ./test/dockertest -run OurSeccompProfile -update")
}

// A node that needs io_uring, as real ones do.
func TestIOUringIsDeniedByDockersProfileAndPermittedByOurs(t *testing.T) {
	t.Parallel()
	image := dockertest.Build(t, dockertest.Files{
		"Dockerfile":  "FROM " + dockertest.Testnet(t) + "\nCOPY config.toml /node.toml\n",
		"config.toml": nodeConfig("v0", 0) + "mock.io_uring = true\n",
	})
	node := []string{"--entrypoint", "/opt/rollup/versions/v0/rollup", image, "--rollup-config-path", "/node.toml", "--stop-at-rollup-height", "1"}
	check := []string{image, "check", "--json"}
	run := func(profile string, argv []string) dockertest.Result {
		path, err := filepath.Abs(profile)
		require.NoError(t, err)
		return dockertest.Once(t, append([]string{"--security-opt", "seccomp=" + path}, argv...)...)
	}
	denied := run(dockersProfile, node)
	assert.Equal(t, 101, denied.Code, denied.Both)
	assert.Contains(t, denied.Err, "io_uring")
	assert.Contains(t, denied.Err, "operation not permitted")
	assert.Contains(t, run(dockersProfile, check).Out, "io_uring is not permitted here")

	permitted := run(ourProfile, node)
	assert.Zero(t, permitted.Code, permitted.Both)
	assert.NotContains(t, run(ourProfile, check).Out, "io_uring is not permitted here")
}
