package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
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
