//go:build race

package program

// raceEnabled: these tests run with the race detector, and so must the programs that they start.
const raceEnabled = true
