package dockertest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The tags of the project's images in tests, which differ from those of a user's 'make image'. The images stay, and so
// does what the builder has cached for them.
const (
	entrypointTag = "dockertest/rollup-entrypoint"
	testnetTag    = "dockertest/rollup-testnet"
	networkTag    = "dockertest/rollup-network"
)

var (
	images = sync.OnceValues(func() (string, error) {
		return makeTarget("image", "IMAGE="+entrypointTag, "TESTNET_IMAGE="+testnetTag)
	})
	networkImage = sync.OnceValues(func() (string, error) { return makeTarget("testnet-image", "NETWORK_IMAGE="+networkTag) })
)

// makeTarget builds images by a target of the Makefile, one test binary at a time: the second one finds everything in
// the builder's cache.
func makeTarget(target string, variables ...string) (output string, err error) {
	top, err := os.Open("../..")
	if err != nil {
		return "", fmt.Errorf("cannot lock the builds of images: %w", err)
	}
	defer top.Close()
	if err := unix.Flock(int(top.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("cannot lock the builds of images: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildDeadline)
	defer cancel()
	// A version that does not change with each commit, so that the builder's cache can be used.
	args := append([]string{"--no-print-directory", "-C", "../..", target, "VERSION=v0.0.0-dockertest", "SOURCE_DATE_EPOCH=0"}, variables...)
	cmd := exec.CommandContext(ctx, "make", args...)
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Entrypoint returns the image of images/entrypoint.Dockerfile, built by 'make image'.
func Entrypoint(t testing.TB) string {
	t.Helper()
	mustBuild(t, images)
	return entrypointTag
}

// Testnet returns the image of images/testnet.Dockerfile, built by 'make image': v0 up to height 40, a migration, v1 up
// to 80, v2 without end, four blocks a second.
func Testnet(t testing.TB) string {
	t.Helper()
	mustBuild(t, images)
	return testnetTag
}

// NetworkImage returns the image of compose/Dockerfile, built by 'make testnet-image': the nodes of the local network
// and their DA.
func NetworkImage(t testing.TB) string {
	t.Helper()
	mustBuild(t, networkImage)
	return networkTag
}

func mustBuild(t testing.TB, build func() (string, error)) {
	t.Helper()
	Engine(t)
	out, err := build()
	require.NoError(t, err, "%s", out)
}

// Files is a build context: the content of each file by its path. A path that ends in "*" is that of an executable,
// without the "*".
type Files map[string]string

// tar returns the files with fixed times, so that the builder's cache recognises them.
func (f Files) tar(t testing.TB) string {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(f)) {
		plain, executable := strings.CutSuffix(name, "*")
		header := &tar.Header{Name: path.Clean(plain), Mode: 0o644, Size: int64(len(f[name])), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		if executable {
			header.Mode = 0o755
		}
		require.NoError(t, w.WriteHeader(header))
		_, err := io.WriteString(w, f[name])
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return out.String()
}

// Write puts the files into a folder.
func (f Files) Write(dir string) error {
	for name, content := range f {
		plain, executable := strings.CutSuffix(name, "*")
		mode := fs.FileMode(0o644)
		if executable {
			mode = 0o755
		}
		file := filepath.Join(dir, plain)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("cannot write a build context: %w", err)
		}
		if err := os.WriteFile(file, []byte(content), mode); err != nil {
			return fmt.Errorf("cannot write a build context: %w", err)
		}
	}
	return nil
}

// Build builds an image from files, one of which is "Dockerfile", with 'docker build FLAGS', and returns its name. The
// image is removed after the test.
func Build(t testing.TB, files Files, flags ...string) string {
	t.Helper()
	name := Name()
	args := append([]string{"build", "-t", name}, flags...)
	Command{Stdin: files.tar(t), Timeout: buildDeadline}.Must(t, append(args, "-")...)
	RemoveLater(t, name)
	return name
}

// RemoveLater removes an image after the test.
func RemoveLater(t testing.TB, image string) {
	// Without pruning: the layers below it may be those on which another test is building.
	t.Cleanup(func() { cleanUp(t, "image", "rm", "-f", "--no-prune", image) })
}

// buildKit finds a docker command that can build with BuildKit: since 23.0 that takes a plugin.
var buildKit = sync.OnceValues(func() (string, error) {
	var problems []string
	for _, name := range []string{"docker", "/usr/bin/docker"} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		cmd := exec.CommandContext(ctx, name, "build", "-q", "-")
		cmd.Env = append(cmd.Environ(), "DOCKER_BUILDKIT=1")
		cmd.Stdin = strings.NewReader("FROM scratch\nLABEL dockertest=probe\n")
		out, err := cmd.CombinedOutput()
		cancel()
		if err == nil {
			return name, nil
		}
		problems = append(problems, fmt.Sprintf("%s: %s", name, bytes.TrimSpace(out)))
	}
	return "", fmt.Errorf("no docker command can build with BuildKit: %s", strings.Join(problems, "; "))
})

// BuildKit returns a docker command that builds with BuildKit. Without one the test fails in CI, and is skipped
// elsewhere.
func BuildKit(t testing.TB) Command {
	t.Helper()
	Engine(t)
	name, err := buildKit()
	if err != nil {
		Missing(t, err.Error())
	}
	return Command{Name: name, Env: []string{"DOCKER_BUILDKIT=1"}, Timeout: buildDeadline}
}

// LegacyBuilder returns a docker command that builds without BuildKit.
func LegacyBuilder() Command {
	return Command{Env: []string{"DOCKER_BUILDKIT=0"}, Timeout: buildDeadline}
}

// Image has the fields of 'docker image inspect' that tests use.
type Image struct {
	ID           string
	Created      string
	Architecture string
	Os           string
	RootFS       struct{ Layers []string }
	Config       ImageConfig
}

// ImageConfig has an image's settings for its containers.
type ImageConfig struct {
	User        string
	Env         []string
	Entrypoint  []string
	Cmd         []string
	WorkingDir  string
	StopSignal  string
	Labels      map[string]string
	Volumes     map[string]struct{}
	Healthcheck *struct {
		Test                           []string
		Interval, Timeout, StartPeriod time.Duration
		Retries                        int
	}
}

// InspectImage returns what docker knows about an image.
func InspectImage(t testing.TB, name string) Image {
	t.Helper()
	var image []Image
	require.NoError(t, json.Unmarshal([]byte(Docker(t, "image", "inspect", name)), &image))
	return image[0]
}
