package sequencer

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"rollup-entrypoint/sequencer/checkpoint"
)

// choices gives small numbers out of fuzzed bytes, and zeros when these are used up.
type choices struct{ data []byte }

func (c *choices) below(n int) int {
	if len(c.data) == 0 {
		return 0
	}
	next := int(c.data[0]) % n
	c.data = c.data[1:]
	return next
}

func (c *choices) yes() bool { return c.below(2) == 1 }

// plan is one that ParsePlan would accept.
func (c *choices) plan() *Plan {
	plan := &Plan{File: "chain.json"}
	var height uint64
	for i := range 1 + c.below(5) {
		v := Version{Name: fmt.Sprintf("v%d", i), Binary: fmt.Sprintf("/b%d", c.below(4)), Config: "/c", OnInterrupted: Rerun}
		if i > 0 {
			v.Start = height + 1
			if c.yes() {
				v.Migration = "/m"
			}
		}
		if c.yes() {
			v.OnInterrupted = Halt
		}
		height += 1 + uint64(c.below(3))
		v.Stop = height
		plan.Versions = append(plan.Versions, v)
	}
	if c.yes() {
		plan.Versions[plan.Last()].Stop = 0
	}
	return plan
}

// checkpoint is one that checkpoint.Parse would accept, mostly.
func (c *choices) checkpoint() *checkpoint.Checkpoint {
	phases := []checkpoint.Phase{"", checkpoint.PhaseMigrating, checkpoint.PhaseRunning, checkpoint.PhaseFinished, checkpoint.PhaseFinishingPrevious}
	proofs := []checkpoint.Proof{checkpoint.ProofDurable, checkpoint.ProofHeight, checkpoint.ProofSlack}
	r := &checkpoint.Checkpoint{
		VersionIndex: c.below(6), BinaryPath: fmt.Sprintf("/b%d", c.below(5)), Phase: phases[c.below(len(phases))],
		MigrationCompleted: c.yes(), Stamped: c.yes(),
	}
	if c.yes() {
		r.Started = new(c.yes())
	}
	if c.yes() {
		r.Height = new(uint64(c.below(16)))
	}
	if c.yes() {
		r.BinarySHA256 = fmt.Sprint(c.below(4))
	}
	if c.yes() { // they are one file, so the two agree
		r.Stamp = c.stamp()
		r.Stamp.VersionIndex, r.Stamp.Name = r.VersionIndex, fmt.Sprintf("v%d", r.VersionIndex)
		r.Stamp.Migration, r.Phase, r.Started = "", checkpoint.PhaseRunning, nil
		if r.MigrationCompleted {
			r.Stamp.Migration = completed
		}
	}
	for range c.below(4) {
		r.History = append(r.History, checkpoint.Entry{
			VersionIndex: c.below(1 + r.VersionIndex), BinaryPath: "/b0", StopHeight: uint64(c.below(16)), Proof: proofs[c.below(len(proofs))],
		})
	}
	return r
}

func (c *choices) stamp() *checkpoint.Stamp {
	migrations := []checkpoint.Migration{"", begun, completed}
	i := c.below(6)
	return &checkpoint.Stamp{
		VersionIndex: i, Name: fmt.Sprintf("v%d", i), StartHeight: uint64(c.below(16)), StopHeight: uint64(c.below(16)),
		Migration: migrations[c.below(len(migrations))], Complete: c.yes(),
	}
}

// found is what a run may find on disk. Mostly its stamp is one of the plan's versions.
func (c *choices) found(plan *Plan) checkpoint.Found {
	found := checkpoint.Found{Storage: "/data/state", State: checkpoint.StatePresent}
	switch c.below(4) {
	case 0:
		found.State = checkpoint.StateNone
	case 1:
		found.Storage, found.State = "", checkpoint.StateUnknown
	}
	if c.yes() {
		found.Checkpoint = c.checkpoint()
	}
	if found.Storage != "" && c.yes() {
		found.Stamp = c.stamp()
		if c.yes() {
			v := plan.Versions[min(found.Stamp.VersionIndex, plan.Last())]
			found.Stamp.Name, found.Stamp.StartHeight = v.Name, v.Start
		}
	}
	return found
}

// Whatever plan, checkpoint, stamp and state come together: a stamp that the plan has is followed or refused, a refusal
// is whole, what follows can be written, and after a kill between the two writes the same follows again.
func FuzzReconcile(f *testing.F) {
	for _, seed := range []string{
		"", "\x02\x00\x00\x01\x01\x00\x01\x01\x01\x00\x02", "\x03\x00\x00\x02\x01\x01\x00\x00\x02\x01\x00\x01\x00\x01\x02\x00\x01\x01",
		"\x01\x00\x00\x02\x01\x01\x01\x00\x01\x00\x01\x03\x01\x01\x00\x01\x01\x05", "\x04\x00\x01\x02\x03\x00\x01\x02\x03\x00\x01\x02\x03\x00\x01\x02\x03\x00\x01\x02\x03",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &choices{data}
		plan := c.plan()
		found := c.found(plan)
		if found.Checkpoint != nil {
			text, err := checkpoint.Encode(*found.Checkpoint)
			if err != nil {
				return
			}
			started := found.Checkpoint.Started // which is read and never written
			parsed, err := checkpoint.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			found.Checkpoint = &parsed
			found.Checkpoint.Started = started
		}
		digest := func(i int) (string, error) {
			if sum := c.below(5); sum < 4 {
				return fmt.Sprint(sum), nil
			}
			return "", errors.New("unreadable")
		}
		before := fmt.Sprintf("%+v %+v %+v", found.Checkpoint, found.Stamp, plan)
		got, err := reconcile(plan, found, digest)
		if after := fmt.Sprintf("%+v %+v %+v", found.Checkpoint, found.Stamp, plan); after != before {
			t.Fatalf("%s became %s", before, after)
		}
		if err != nil {
			wantWholeFailure(t, err)
			return
		}
		holdAgainst(t, plan, found, got.record)
		moved := found.Stamp != nil && found.Stamp.VersionIndex != got.record.stamp.VersionIndex // in another plan, as the checkpoint may be
		if found.Storage != "" && !moved {
			found.Stamp = &got.record.stamp // killed before the checkpoint has followed
			again, err := reconcile(plan, found, digest)
			if err != nil || !reflect.DeepEqual(again.record.stamp, got.record.stamp) {
				t.Fatalf("after a kill %+v follows %+v: %v", again.record.stamp, got.record.stamp, err)
			}
		}
	})
}

// wantWholeFailure wants the three parts of a sentence, and the code of a mismatch.
func wantWholeFailure(t *testing.T, err error) {
	t.Helper()
	var failure *Failure
	if !errors.As(err, &failure) || failure.Code != CodeMismatch || failure.Cause == "" || failure.What == "" || failure.Safe == "" || failure.ToDo() == "" {
		t.Fatalf("%#v is no whole failure with code 78", err)
	}
}

// holdAgainst compares a record with what was found.
func holdAgainst(t *testing.T, plan *Plan, found checkpoint.Found, r record) {
	t.Helper()
	if s := found.Stamp; s != nil && (s.Name != r.stamp.Name || s.StartHeight != r.stamp.StartHeight || s.Migration != r.stamp.Migration || s.StopHeight != r.stamp.StopHeight) {
		t.Fatalf("the stamp %+v became %+v", s, r.stamp)
	}
	v := plan.Versions[r.stamp.VersionIndex]
	if r.stamp.Name != v.Name || r.stamp.StartHeight != v.Start || r.checkpoint.VersionIndex != r.stamp.VersionIndex || r.checkpoint.BinaryPath != v.Binary {
		t.Fatalf("%+v is not version %d of %+v", r, r.stamp.VersionIndex, plan)
	}
	if _, err := checkpoint.EncodeStamp(r.stamp); err != nil {
		t.Fatal(err)
	}
	if _, err := checkpoint.Encode(r.checkpoint); err != nil {
		t.Fatalf("%+v, of %+v with %+v: %v", r, found.Checkpoint, found.Stamp, err)
	}
}

// The tail is the end of everything that was written, however it was cut.
func FuzzTail(f *testing.F) {
	f.Add([]byte("\xff\xff\x00\x01"), "Error: one\n\n  two  \r\nthree", uint8(2))
	f.Add([]byte("\x80\x00\x80\x00\x80\x00"), "\n\n", uint8(5))
	f.Add([]byte("\xff\xff\x00\x00\x00\x02\xff\xff"), "thread 'main' panicked at src/main.rs:1:1:\nx\nnote: run with `RUST_BACKTRACE=1`\n", uint8(3))
	source := pattern(4 * tailSize)
	f.Fuzz(func(t *testing.T, sizes []byte, text string, n uint8) {
		var kept tail
		end := 0
		for len(sizes) >= 2 && end < 3*tailSize {
			size := 2 * (int(sizes[0])<<8 | int(sizes[1])) // up to a byte less than twice what is kept
			size = min(size, len(source)-end)
			sizes = sizes[2:]
			if wrote, err := kept.Write(source[end : end+size]); wrote != size || err != nil {
				t.Fatalf("wrote %d of %d bytes: %v", wrote, size, err)
			}
			end += size
		}
		if got := kept.bytes(); string(got) != string(source[max(0, end-tailSize):end]) {
			t.Fatalf("after %d bytes %d are kept, beginning with %.20q", end, len(got), got)
		}
		all := string(source[:end]) + "\n" + text
		kept.Write([]byte("\n" + text))
		if got, want := kept.lastLines(int(n)), linesOf(all[max(0, len(all)-tailSize):], int(n)); got != want {
			t.Fatalf("the last %d lines are %.200q, want %.200q", n, got, want)
		}
	})
}

// linesOf goes backwards through the text.
func linesOf(text string, n int) (lines string) {
	all := strings.Split(text, "\n")
	for i := len(all) - 1; i >= 0 && n > 0; i-- {
		if line := strings.TrimSpace(all[i]); line != "" {
			lines = line + "\n" + lines
			n--
		}
	}
	return strings.TrimSuffix(lines, "\n")
}
