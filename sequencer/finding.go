package sequencer

// Severity says whether a finding is sure to stop the sequence.
type Severity string

const (
	// SeverityError: the version cannot be run as things are.
	SeverityError Severity = "error"
	// SeverityWarning: it may fail.
	SeverityWarning Severity = "warning"
)

// Finding is one thing that a preflight found out of order.
type Finding struct {
	// Version is the index of the version, -1 for the whole plan.
	Version  int
	Severity Severity
	// What is out of order, and what to do next.
	What, Next string
}
