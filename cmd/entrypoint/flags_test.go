package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestStrayVariablesAreToldApartFromForeignOnes(t *testing.T) {
	for name, value := range map[string]string{
		"ENTRYPOINT_STOPTIMEOUT":        "5s",
		"ENTRYPOINT_Config":             "manager.json",
		"ENTRYPOINT_CHECKPOINT":         "c.json",
		"ENTRYPOINT_STOP_TIMEOUT":       "5s",
		"ENTRYPOINT_PORT":               "tcp://10.0.0.1:80",
		"ENTRYPOINT_PORT_80_TCP_ADDR":   "10.0.0.1",
		"ENTRYPOINT_SERVICE_HOST":       "10.0.0.1",
		"ENTRYPOINT_SERVICE_PORT_HTTP":  "80",
		"ENTRYPOINT_CONFIG_PORT":        "tcp://10.0.0.1:80",
		"ENTRYPOINT_VERSION":            "1.2",
		"ENTRYPOINT_RESTART_EACH_NIGHT": "yes",
	} {
		t.Setenv(name, value)
	}
	var f runFlags
	flags := newFlags("run", runUsage)
	f.register(flags)
	assert.Equal(t, []string{
		`ENTRYPOINT_CHECKPOINT is not a setting (did you mean "ENTRYPOINT_CHECKPOINT_FILE"?)`,
		`ENTRYPOINT_Config is not a setting (did you mean "ENTRYPOINT_CONFIG"?)`,
		`ENTRYPOINT_STOPTIMEOUT is not a setting (did you mean "ENTRYPOINT_STOP_TIMEOUT"?)`,
	}, strayEnvironment(flags))
}

func TestHeightIsDecimal(t *testing.T) {
	var height uint64
	flags := newFlags("run", "")
	registerStopHeight(flags, &height)
	require.NoError(t, flags.parse([]string{"--stop-height=0220"}))
	assert.Equal(t, uint64(220), height)
	for _, wrong := range []string{"", "0x220", "1_000", "-1", "1.5", "18446744073709551616"} {
		flags := newFlags("run", "")
		registerStopHeight(flags, &height)
		assert.EqualError(t, flags.parse([]string{"--stop-height=" + wrong}), "--stop-height: want a whole number within its range", wrong)
	}
}
