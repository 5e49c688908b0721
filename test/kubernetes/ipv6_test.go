package kubernetes

import (
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestIPv6 is for a cluster of its own, in which nothing has an IPv4 address but loopback.
func TestIPv6(t *testing.T) {
	if os.Getenv("FAMILY") != "ipv6" {
		t.Skip("this cluster has IPv4; make e2e-kubernetes makes another one")
	}
	r := prepare(t, blockTime)
	listens := []string{`bind_host = "0.0.0.0"`, `bind_host = "::"`}
	dual := release(t, "", files{
		"v0/config.toml": config(t, "v0", listens...), "v1/config.toml": config(t, "v1", listens...), "v2/config.toml": config(t, "v2", listens...),
	})
	r.upgrade(with(r.base(dual), values{"service": values{"ipFamilies": []any{"IPv6"}, "ipFamilyPolicy": "SingleStack"}}))
	r.upgraded(2, "v2", 81)
	for which, p := range r.pods() {
		address, err := netip.ParseAddr(p.Status.PodIP)
		require.NoError(t, err)
		require.True(t, address.Is6(), which)
		require.Zero(t, p.restarts(), which)
	}
	require.Contains(t, r.mustHelm("test", name), "Succeeded")
}
