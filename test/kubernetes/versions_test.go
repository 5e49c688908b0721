package kubernetes

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rollup-entrypoint/test/dockertest"
)

// files are a build context.
type files = dockertest.Files

// images are one release of a rollup: the same versions for the node that leads and for those that follow it.
type images struct{ sequencer, replica string }

// values are those of the chart for the images.
func (i images) values() values {
	image := func(name string) values { return values{"repository": name, "tag": "latest", "pullPolicy": "Never"} }
	return values{"image": image(i.sequencer), "replicas": values{"image": image(i.replica)}}
}

// localNetwork is the image of the local network, under a name that no other build takes away.
var localNetwork struct {
	sync.Once
	name string
}

func localNetworkImage(t testing.TB) string {
	t.Helper()
	localNetwork.Do(func() {
		localNetwork.name = dockertest.Name()
		dockertest.Docker(t, "tag", dockertest.NetworkImage(t), localNetwork.name)
		importImage(t, localNetwork.name)
	})
	require.NotEmpty(t, localNetwork.name)
	return localNetwork.name
}

// importImage copies an image from the Docker engine to the cluster's node.
func importImage(t testing.TB, name string) {
	t.Helper()
	must(t, "", "sh", "-c", `docker save "$1" | ctr -n k8s.io images import -`, "sh", name)
}

// built has the images by their content, so that each is built once.
var built sync.Map

type build struct {
	sync.Once
	images
}

// release builds the images of the local network with changed files in /opt/rollup/versions, and more lines in the
// Dockerfile.
func release(t testing.TB, lines string, changed files) images {
	t.Helper()
	all := files{}
	for _, version := range []string{"v0", "v1", "v2"} {
		all[version+"/config.toml"] = config(t, version)
	}
	maps.Copy(all, changed)
	key, err := json.Marshal([]any{lines, all})
	require.NoError(t, err)
	value, _ := built.LoadOrStore(string(key), &build{})
	made := value.(*build)
	made.Do(func() {
		sequencer := one(t, lines, all, "leader")
		made.images = images{sequencer: sequencer, replica: one(t, lines, all, "replica")}
	})
	require.NotEmpty(t, made.replica)
	return made.images
}

func one(t testing.TB, lines string, all files, role string) string {
	t.Helper()
	context := files{"Dockerfile": "FROM " + localNetworkImage(t) + "\nCOPY versions/ /opt/rollup/versions/\n" + lines +
		"USER 0:0\nRUN [\"/entrypoint\", \"manifest\", \"write\"]\nUSER 65532:65532\n"}
	for name, text := range all {
		context["versions/"+name] = strings.ReplaceAll(text, `role = "auto"`, `role = "`+role+`"`)
	}
	name := dockertest.Build(t, context)
	importImage(t, name)
	return name
}

// config is the config of a version of the local network, with changes: pairs of an old text and a new one.
func config(t testing.TB, version string, changes ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dockertest.Root(t), "compose", "plan", version, "config.toml"))
	require.NoError(t, err)
	out := string(text)
	for i := 0; i+1 < len(changes); i += 2 {
		require.Contains(t, out, changes[i], version)
		out = strings.ReplaceAll(out, changes[i], changes[i+1])
	}
	return out
}

// faulty is config with more keys in [mock].
func faulty(t testing.TB, version, keys string, changes ...string) string {
	t.Helper()
	return config(t, version, append([]string{"log_every = 10", "log_every = 10\n" + keys}, changes...)...)
}

// localNetworkRelease has the versions of the local network: v0 up to height 40, a migration, v1 up to 80, and v2.
func localNetworkRelease(t testing.TB) images { t.Helper(); return release(t, "", nil) }

// slowMigration has a migration to v1 that takes that long.
func slowMigration(t testing.TB, seconds int, onInterrupted string) images {
	t.Helper()
	return release(t, "", files{
		"v1/config.toml":  config(t, "v1", `sleep = "2s"`, fmt.Sprintf(`sleep = "%ds"`, seconds)),
		"v1/version.json": fmt.Sprintf(`{"start_height": 41, "stop_height": 80, "on_interrupted_migration": %q}`, onInterrupted),
	})
}

// oneMore has one version more than the local network: v2 ends at stop, v3 has a migration.
func oneMore(t testing.TB, stop uint64) images {
	t.Helper()
	v3 := config(t, "v2", `"v2"`, `"v3"`, "state_version = 1", "state_version = 2", `"format-1"`, `"format-2"`)
	copied := "COPY --from=" + localNetworkImage(t) + " /opt/rollup/versions/v1/rollup /opt/rollup/versions/v3/"
	return release(t, copied+"rollup\n"+copied+"migration\n", files{
		"v2/version.json": fmt.Sprintf(`{"start_height": 81, "stop_height": %d}`, stop),
		"v3/version.json": fmt.Sprintf(`{"start_height": %d}`, stop+1),
		"v3/config.toml":  v3 + "\n[mock.migration]\nidempotent = true\nsleep = \"1s\"\n",
	})
}
