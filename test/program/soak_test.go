package program

import (
	"flag"
	"testing"
	"time"
)

// How long a soak lasts, and what it draws. By default it is short, so that every run of the tests does all that it does.
var (
	soakFor  = flag.Duration("soak", 12*time.Second, "`TIME` that TestSoak takes; growth is judged from two minutes on")
	soakSeed = flag.Uint64("soak-seed", 0, "`SEED` of the first life of TestSoak, 0 for a new one; the next life has the next seed")
)

// One entrypoint lives through version after version and every fault that it has to survive, and beside it short lives
// come and go in which it does not survive. 'make soak' runs it for longer.
func TestSoak(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	seed := *soakSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-soak-seed %d", seed)
	t.Run("marathon", func(t *testing.T) {
		t.Parallel()
		newMarathon(t, *soakFor, seed).run()
	})
	t.Run("lives", func(t *testing.T) {
		t.Parallel()
		runLives(t, *soakFor, seed)
	})
}
