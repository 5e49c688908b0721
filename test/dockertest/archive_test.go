package dockertest_test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// savedLayers reads the archive of 'docker save', oldest layer first.
func savedLayers(t *testing.T, path string) []map[string]*tar.Header {
	t.Helper()
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	contents, links := map[string]string{}, map[string]string{}
	for reader := tar.NewReader(file); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		text, err := io.ReadAll(reader)
		require.NoError(t, err)
		contents[header.Name] = string(text)
		// A layer that is there twice is a link.
		if header.Typeflag == tar.TypeSymlink {
			links[header.Name] = header.Linkname
		}
	}
	var manifest []struct{ Layers []string }
	require.NoError(t, json.Unmarshal([]byte(contents["manifest.json"]), &manifest))
	var layers []map[string]*tar.Header
	for _, name := range manifest[0].Layers {
		if target, linked := links[name]; linked {
			name = strings.TrimPrefix(target, "../")
		}
		layers = append(layers, headers(t, contents[name]))
	}
	return layers
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}
