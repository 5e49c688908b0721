package kubernetes

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const blockTime = 250 * time.Millisecond

func TestInstallThenTwoUpgrades(t *testing.T) {
	t.Parallel()
	r := prepare(t, blockTime)
	notes := r.upgrade(r.base(image(t)))
	require.Contains(t, notes, "upgrade", "the notes say how to watch it")
	r.upgraded(2, "v2", 81)
	for which, p := range r.pods() {
		require.Zero(t, p.restarts(), which)
		require.Len(t, r.checkpoint(which).History, 3, which)
	}
	require.Contains(t, r.must("test", name), "Succeeded")
}
