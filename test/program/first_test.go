package program

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRunSaysThatItIsNotProcess1(t *testing.T) {
	t.Parallel()
	// It ends because a program is missing, before any node is started.
	refused := []version{{stop: 5}, {stop: 10, keys: map[string]any{"rollup_binary": "/no/such/node"}}}
	elsewhere := newChain(t, refused...)
	elsewhere.run(phase{name: "elsewhere", do: start(), exit: exits(78), events: []event{on("not process 1"), on("preflight problem")}})
	assert.Contains(t, elsewhere.lastLog, "another process is the init here")

	needNamespaces(t)
	first := newChain(t, refused...)
	first.stage, first.asFirst = &stage{Proc: true}, true
	first.run(phase{name: "process 1", do: start(), exit: exits(78), events: []event{on("preflight problem")}})
	assert.NotContains(t, first.lastLog, "not process 1")
}
