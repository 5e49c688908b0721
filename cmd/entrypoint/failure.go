package main

import (
	"errors"
	"fmt"
	"log/slog"

	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/sequencer"
)

// asFailure is the failure that an error is, or one made of its text.
func asFailure(err error) *sequencer.Failure {
	var f *sequencer.Failure
	if errors.As(err, &f) {
		return f
	}
	return &sequencer.Failure{Code: sequencer.CodeMismatch, What: err.Error()}
}

// fail prints why a command failed, with the last words of the node that it started, and returns the exit code: 0 if err
// is nil.
func fail(p program, err error) int {
	if err == nil {
		return 0
	}
	f := asFailure(err)
	fmt.Fprintf(p.stderr, "entrypoint: %s\n%s", plain.Lines(err.Error()), lastWords(f.Stderr, terminationLimit))
	return f.Code
}

// oneLineLimit is how long a failure in one line may be, in bytes.
const oneLineLimit = 300

// oneLine says why a run failed, without what to do.
func oneLine(err error) string {
	f := asFailure(err)
	text := f.What
	if f.Err != nil {
		text += ": " + f.Err.Error()
	}
	return plain.Line(plain.Cut(fmt.Sprintf("exit code %d: %s", f.Code, text), oneLineLimit))
}

// report says why a run failed, in the termination message and, as its last line, in the log. It returns the exit code.
func report(log *slog.Logger, to terminationFile, err error) int {
	f := asFailure(err)
	if err := to.write(terminationMessage(f)); err != nil {
		log.Warn("termination message not written", slog.String("error", err.Error()))
	}
	log.Error("run failed", failureAttrs(f, err)...)
	return f.Code
}

// failureAttrs are the known facts of a failure for the log.
func failureAttrs(f *sequencer.Failure, err error) []any {
	attrs := []any{slog.Int("exit_code", f.Code), slog.String("error", err.Error())}
	if f.Cause != "" {
		attrs = append(attrs, slog.String("cause", string(f.Cause)))
	}
	if f.Stderr != "" {
		attrs = append(attrs, slog.String("stderr", plain.Uncoloured(f.Stderr)))
	}
	if f.Version != nil {
		attrs = append(attrs, slog.Int("version", *f.Version), slog.Uint64("start_height", f.Start), slog.Uint64("stop_height", f.Stop))
	}
	if f.Height != nil {
		attrs = append(attrs, slog.Uint64("height", *f.Height))
	}
	return attrs
}
