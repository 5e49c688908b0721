package dockertest_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/test/dockertest"
)

var update = flag.Bool("update", false, "write images/seccomp.json and images/seccomp-kubernetes.json anew")

const (
	// dockersProfile is default.json of github.com/moby/profiles/seccomp v0.3.0. Engines before 25 have an older one
	// built in, which still permits io_uring.
	dockersProfile = "testdata/seccomp-default.json"
	ourProfile     = "../../images/seccomp.json"
	// kubeletsProfile is the same for the kubelet.
	kubeletsProfile = "../../images/seccomp-kubernetes.json"
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
	same(t, want, ourProfile)
	same(t, forTheKubelet(t, want), kubeletsProfile)
}

// same compares a file with what it must be.
func same(t *testing.T, want, file string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o644))
	}
	have, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, want, string(have), "run: DOCKER_TESTS=1 go test ./test/dockertest -run OurSeccompProfile -update")
}

// forTheKubelet is a profile of Docker for a container without capabilities, in the form of the OCI runtime
// specification. containerd knows no other, and reads over the conditions of Docker's: it would permit mount and bpf.
func forTheKubelet(t *testing.T, profile string) string {
	t.Helper()
	type conditions struct{ Caps, Arches []string }
	var rules struct {
		Syscalls []struct{ Includes conditions }
	}
	var out struct {
		DefaultAction   string           `json:"defaultAction"`
		DefaultErrnoRet int              `json:"defaultErrnoRet"`
		Architectures   []string         `json:"architectures"`
		Syscalls        []map[string]any `json:"syscalls"`
	}
	require.NoError(t, json.Unmarshal([]byte(profile), &rules))
	require.NoError(t, json.Unmarshal([]byte(profile), &out))
	out.Architectures = []string{"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"}
	all := out.Syscalls
	out.Syscalls = nil
	for i, rule := range all {
		when := rules.Syscalls[i].Includes
		ours := len(when.Arches) == 0 || slices.Contains(when.Arches, "amd64") || slices.Contains(when.Arches, "arm64")
		if len(when.Caps) > 0 || !ours {
			continue
		}
		// What Docker excludes depends on a capability or a machine that is not there, and the kernel is new enough.
		for _, condition := range []string{"includes", "excludes", "comment"} {
			delete(rule, condition)
		}
		out.Syscalls = append(out.Syscalls, rule)
	}
	text, err := json.MarshalIndent(out, "", "\t")
	require.NoError(t, err)
	return string(text) + "\n"
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

	// Docker reads both forms.
	for _, profile := range []string{ourProfile, kubeletsProfile} {
		permitted := run(profile, node)
		assert.Zero(t, permitted.Code, permitted.Both)
		assert.NotContains(t, run(profile, check).Out, "io_uring is not permitted here")
	}
}
