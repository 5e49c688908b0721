package dockertest_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/images/dockertest"
)

func TestMain(m *testing.M) { os.Exit(dockertest.Main(m)) }

// 'docker run -v demo:/data IMAGE' is all that is needed: no flag, no user, no owner of the volume.
func TestTestnetUpgradesThroughThreeVersions(t *testing.T) {
	t.Parallel()
	c := dockertest.Run(t, "-v", dockertest.Volume(t)+":/data", dockertest.Testnet(t))
	c.WaitEvent("version completed", "version", 0, "height", 40)
	c.WaitEvent("migration finished", "version", 1)
	c.WaitEvent("version completed", "version", 1, "height", 80)
	c.WaitEvent("version started", "version", 2)
	c.WaitHealth("healthy")
	c.Stop()
	require.Zero(t, c.WaitExit())
	assert.Contains(t, c.ReadFile("/data/checkpoint.json"), `"version_index": 2`)
}
