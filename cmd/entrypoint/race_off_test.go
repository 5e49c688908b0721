//go:build !race

package main_test

// raceEnabled: these tests run with the race detector, so the programs that they start shall too.
const raceEnabled = false
