// Package kubernetes installs the chart on a real Kubernetes of one node, always with helm and kubectl, as users do, and
// does to it what happens to a rollup there.
//
// The program ./cluster makes the Kubernetes, and runs these tests in its network: make e2e-kubernetes. Each scenario has
// a namespace of its own, in which the Pod Security Standard "restricted" is enforced, so scenarios run side by side. The
// nodes are the stand-ins of the local network of compose/.
package kubernetes

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// deadline is for anything that a test waits for on a busy machine. Only a failing test reaches it.
	deadline = 8 * time.Minute
	// lookEvery is the pause between two looks.
	lookEvery = 250 * time.Millisecond
)

func TestMain(m *testing.M) {
	if os.Getenv("KUBERNETES_TESTS") == "" {
		fmt.Println("these tests need a Kubernetes; run: make e2e-kubernetes")
		os.Exit(0)
	}
	if os.Getenv("VOLUMES") == "" {
		fmt.Println("these tests run inside of test/kubernetes/cluster; run: make e2e-kubernetes")
		os.Exit(1)
	}
	code := m.Run()
	if localNetwork.name != "" {
		_ = exec.Command("docker", "image", "rm", "--no-prune", localNetwork.name).Run()
	}
	os.Exit(code)
}

// result is the outcome of a command.
type result struct {
	// out is its standard output, both that with its standard error.
	out, both string
	code      int
}

// try runs a command with an input to its end, whatever its exit code is.
func try(t testing.TB, input string, argv ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(input)
	// Programs that it starts may outlive it and hold the pipes.
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	both := &shared{}
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, both), both
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		require.NoError(t, errors.Join(err, ctx.Err()), "%s\n%s", cmd, both.text.String())
	}
	return result{out: strings.TrimSuffix(out.String(), "\n"), both: both.text.String(), code: cmd.ProcessState.ExitCode()}
}

// shared is a buffer with two writers.
type shared struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// must is try for a command that must exit 0; it returns the standard output.
func must(t testing.TB, input string, argv ...string) string {
	t.Helper()
	done := try(t, input, argv...)
	require.Zero(t, done.code, "%s\n%s", strings.Join(argv, " "), done.both)
	return done.out
}

// apply gives the cluster objects as JSON or YAML.
func apply(t testing.TB, objects ...string) {
	t.Helper()
	must(t, strings.Join(objects, "\n---\n"), "kubectl", "apply", "-f", "-")
}

// apiServer asks the API server without kubectl, which takes a fifth of a second of a processor to start.
var apiServer = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
	TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // its certificate is its own, see ./cluster
}}

// read decodes what the API server has at path.
func read(t testing.TB, path string, into any) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, os.Getenv("API_SERVER")+path, nil)
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+os.Getenv("API_TOKEN"))
	response, err := apiServer.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode, "%s: %s", path, text)
	require.NoError(t, json.Unmarshal(text, into), path)
}

// until waits until reached is true; what describes that, and tell what there is instead.
func until(t testing.TB, what string, reached func() bool, tell func() any) {
	t.Helper()
	for end := time.Now().Add(deadline); !reached(); time.Sleep(lookEvery) {
		require.True(t, time.Now().Before(end), "waited in vain: %s: %+v", what, tell())
	}
}
