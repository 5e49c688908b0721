package dockertest_test

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"

	"rollup-entrypoint/test/dockertest"
)

// buildx returns the path of buildx: the plugin of the docker command as a program of its own.
func buildx(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"docker-buildx", "/usr/libexec/docker/cli-plugins/docker-buildx", "/usr/lib/docker/cli-plugins/docker-buildx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	dockertest.Missing(t, "there is no docker-buildx")
	return ""
}

// The testnet image for arm64, compiled on this machine, runs under qemu. The legacy builder of Docker 20.10 cannot
// build for another machine: it takes layers of the wrong machine from its cache.
func TestImageForArm64RunsAndUpgrades(t *testing.T) {
	t.Parallel()
	builder := dockertest.BuildKit(t)
	builder.Dir = dockertest.Root(t)
	name := dockertest.Name()
	builder.Must(t, append([]string{
		"build", "-f", "images/testnet.Dockerfile", "-t", name, "--platform", "linux/arm64",
		"--build-arg", "GOPROXY=" + goEnv(t, "GOPROXY"),
	}, append(buildArgs, ".")...)...)
	dockertest.RemoveLater(t, name)
	assert.Equal(t, "arm64", dockertest.InspectImage(t, name).Architecture)

	result := dockertest.Once(t, "--platform", "linux/arm64", name, "version")
	if result.Code != 0 {
		dockertest.Missing(t, "the kernel runs no arm64 program: install qemu-user-static and register it with binfmt_misc: "+result.Both)
	}
	assert.Contains(t, result.Out, "v0.0.0-dockertest")
	verified := dockertest.Once(t, "--platform", "linux/arm64", name, "manifest", "verify")
	assert.Zero(t, verified.Code, verified.Both)
	c := dockertest.Run(t, "--platform", "linux/arm64", "-v", dockertest.Volume(t)+":/data", name)
	c.WaitEvent("migration finished", "version", 1, "exit_code", 0)
	c.WaitEvent("height known", "version", 2) // a node that has only been started may have no handler yet
	c.Stop()
	assert.Zero(t, c.WaitExit())
}
