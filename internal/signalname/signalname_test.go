package signalname

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"
)

func TestSignalsHaveTheirNamesAndRealTimeOnesTheirNumbers(t *testing.T) {
	assert.Equal(t, "SIGTERM", Of(unix.SIGTERM))
	assert.Equal(t, "signal 37", Of(37))
}
