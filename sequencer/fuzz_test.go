package sequencer

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"rollup-entrypoint/sequencer/sovereign"
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
		v := Version{Name: defaultName(i), Binary: fmt.Sprintf("/b%d", c.below(4)), Config: "/c", OnInterrupted: Rerun}
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

// checkpoint is one that ParseCheckpoint would accept, mostly.
func (c *choices) checkpoint() Checkpoint {
	phases := []Phase{"", PhaseMigrating, PhaseRunning, PhaseFinished, PhaseFinishingPrevious}
	record := Checkpoint{
		VersionIndex: c.below(6), BinaryPath: fmt.Sprintf("/b%d", c.below(5)), Phase: phases[c.below(len(phases))],
		Started: c.yes(), MigrationCompleted: c.yes(),
	}
	if c.yes() {
		record.BinarySHA256 = fmt.Sprint(c.below(4))
	}
	for range c.below(4) {
		record.History = append(record.History, Completed{
			VersionIndex: c.below(1 + record.VersionIndex), BinaryPath: "/b0", StopHeight: uint64(c.below(16)), Proof: ProofDurable,
		})
	}
	return record
}

// Wherever plan and checkpoint meet, the run goes on in the checkpoint's version, and a migration is only started where
// the record says that this is right.
func FuzzResume(f *testing.F) {
	for _, seed := range []string{
		"", "\x02\x00\x00\x01\x01\x00\x01\x01\x01\x00\x02", "\x03\x00\x00\x02\x01\x01\x00\x00\x02\x01\x00\x01\x00\x01\x02\x00\x01\x01",
		"\x01\x00\x00\x02\x01\x01\x01\x00\x01\x00\x01\x03\x01\x01\x00\x01\x01\x05", "\x04\x00\x01\x02\x03\x00\x01\x02\x03\x00\x01\x02\x03\x00\x01\x02\x03\x00\x01\x02\x03",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &choices{data}
		plan, record := c.plan(), c.checkpoint()
		text, err := EncodeCheckpoint(record)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseCheckpoint(text); err != nil {
			return
		}
		before, planBefore := fmt.Sprintf("%+v", record), fmt.Sprintf("%+v", plan)
		at, err := Resume(plan, &record)
		if fmt.Sprintf("%+v", record) != before || fmt.Sprintf("%+v", plan) != planBefore {
			t.Fatalf("%s became %+v", before, record)
		}
		if err != nil {
			checkFailure(t, err)
		} else {
			checkPosition(t, plan, record, at)
		}
		if record.VersionIndex <= plan.Last() {
			checkMatch(t, plan, record, c)
		}
		checkAdoption(t, plan, record, c)
	})
}

// checkFailure wants the three parts of a sentence, and the code of a mismatch.
func checkFailure(t *testing.T, err error) {
	t.Helper()
	var failure *Failure
	if !errors.As(err, &failure) || failure.Code != CodeMismatch || failure.What == "" || failure.Safe == "" || failure.Next == "" {
		t.Fatalf("%#v is no whole failure with code 78", err)
	}
}

// checkPosition holds a position against the record that it was made of.
func checkPosition(t *testing.T, plan *Plan, from Checkpoint, at Position) {
	t.Helper()
	i := from.VersionIndex
	v := plan.Versions[i]
	wrong := ""
	switch at.Next {
	case NextMigrate, NextMigrateAgain:
		again := at.Next == NextMigrateAgain
		due := from.Phase == PhaseMigrating || from.Phase == PhaseFinishingPrevious && !again
		if v.Migration == "" || from.MigrationCompleted || !due || from.Started != again || again && v.OnInterrupted == Halt {
			wrong = "a migration that is not due"
		}
		if at.Record.Phase != from.Phase {
			wrong = "a migration in another phase"
		}
	case NextRun:
		if at.Record.Phase != PhaseRunning {
			wrong = "a node in another phase"
		}
		if v.Migration != "" && !from.MigrationCompleted {
			wrong = "a node before its migration"
		}
		if from.Phase == PhaseFinishingPrevious {
			wrong = "a node before the previous version has proven its stop height"
		}
		if from.Phase == PhaseMigrating && at.Record.Started {
			wrong = "a node that was never started as started"
		}
	case NextFinishPrevious:
		if from.Phase != PhaseFinishingPrevious || at.Record.Phase != PhaseFinishingPrevious || v.Migration != "" {
			wrong = "a previous version that is complete"
		}
	case NextFinished:
		if from.Phase != PhaseFinished || i != plan.Last() || v.Stop == 0 {
			wrong = "an end that is none"
		}
	default:
		wrong = "an unknown step"
	}
	if at.Record.VersionIndex != i || at.Record.MigrationCompleted != from.MigrationCompleted || !reflect.DeepEqual(at.Record.History, from.History) {
		wrong = "another record"
	}
	if err := at.Record.check(); err != nil {
		wrong = err.Error()
	}
	if wrong != "" {
		t.Fatalf("%s: %+v was made of %+v with %+v", wrong, at, from, plan.Versions)
	}
}

// checkMatch gives each binary a digest: only the same content under another path counts as moved.
func checkMatch(t *testing.T, plan *Plan, record Checkpoint, c *choices) {
	t.Helper()
	digests := map[string]string{}
	for i := range 4 {
		digests[fmt.Sprintf("/b%d", i)] = fmt.Sprint(c.below(5))
	}
	digest := func(i int) (string, error) {
		sum := digests[plan.Versions[i].Binary]
		if sum == "4" {
			return "", errors.New("unreadable")
		}
		return sum, nil
	}
	here := plan.Versions[record.VersionIndex].Binary
	moved, err := MatchBinary(plan, record, digest)
	same := here == record.BinaryPath
	switch {
	case same != (err == nil && !moved):
		t.Fatalf("%+v with %s there: moved %t, %v", record, here, moved, err)
	case moved && (err != nil || record.BinarySHA256 == "" || digests[here] != record.BinarySHA256):
		t.Fatalf("%+v counts as moved to %s, which has %s", record, here, digests[here])
	case err != nil:
		checkFailure(t, err)
	}
}

// checkAdoption: where the operator puts the sequence, there it goes on, and the migration is due or is not, as told.
func checkAdoption(t *testing.T, plan *Plan, old Checkpoint, c *choices) {
	t.Helper()
	i, migrated := c.below(7)-1, c.yes()
	adopted, err := AdoptVersion(plan, &old, i, migrated, "")
	if err != nil {
		checkFailure(t, err)
		if i >= 0 && i <= plan.Last() {
			t.Fatalf("version %d is in the plan, but %v", i, err)
		}
		return
	}
	at, err := Resume(plan, &adopted)
	if err != nil || adopted.VersionIndex != i {
		t.Fatalf("version %d was adopted as %+v, and then: %v", i, adopted, err)
	}
	want := NextRun
	if plan.Versions[i].Migration != "" && !migrated {
		want = NextMigrate
	}
	if at.Next != want {
		t.Fatalf("version %d, migrated %t, was adopted as %+v, and then step %d", i, migrated, adopted, at.Next)
	}
	checkPosition(t, plan, adopted, at)
}

// Each decision is one that the table in the README has for the evidence.
func FuzzDecide(f *testing.F) {
	const asked, told, once, needed, slackGiven = 1, 2, 4, 8, 16
	f.Add(uint8(0), uint8(0), uint8(told), uint64(101), uint64(200), uint64(200), 1.5, int64(time.Second), uint64(0), uint8(0), uint64(0), uint64(0))
	f.Add(uint8(0), uint8(0), uint8(told|needed), uint64(0), uint64(200), uint64(195), 0.0, int64(0), uint64(0), uint8(0), uint64(0), uint64(0))
	f.Add(uint8(0), uint8(0), uint8(told|slackGiven), uint64(0), uint64(200), uint64(150), 0.0, int64(0), uint64(50), uint8(0), uint64(0), uint64(0))
	f.Add(uint8(0), uint8(0), uint8(asked|told|once), uint64(0), uint64(200), uint64(200), 0.0, int64(0), uint64(0), uint8(0), uint64(0), uint64(0))
	f.Add(uint8(101), uint8(0), uint8(0), uint64(101), uint64(200), uint64(0), 0.0, int64(0), uint64(0), uint8(1), uint64(200), uint64(200))
	f.Add(uint8(101), uint8(0), uint8(asked), uint64(101), uint64(200), uint64(0), 0.0, int64(0), uint64(0), uint8(2), uint64(101), uint64(150))
	f.Add(uint8(101), uint8(0), uint8(0), uint64(101), uint64(200), uint64(0), 0.0, int64(0), uint64(0), uint8(2), uint64(101), uint64(99))
	f.Add(uint8(101), uint8(0), uint8(told), uint64(101), uint64(200), uint64(250), 0.0, int64(0), uint64(0), uint8(1), uint64(200), uint64(250))
	f.Add(uint8(0), uint8(15), uint8(asked), uint64(101), uint64(0), uint64(0), 0.0, int64(0), uint64(0), uint8(0), uint64(0), uint64(0))
	f.Add(uint8(0), uint8(0), uint8(told), uint64(0), uint64(1<<64-2), uint64(1<<64-6), 0.0, int64(0), uint64(0), uint8(0), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, code, signal, flags uint8, start, stop, last uint64, rate float64, age int64, slack uint64, kind uint8, requested, current uint64) {
		if stop == 1<<64-1 || !(rate >= 0 && rate < 1e12) || age < 0 {
			return // no plan and no watch gives these
		}
		e := Evidence{
			Exit: Exit{Code: int(code)}, StopRequested: flags&asked != 0, Start: start, Stop: stop, Rate: rate,
			RateUnknown: flags&once != 0, Age: time.Duration(age), ProofNeeded: flags&needed != 0,
		}
		if signal%65 != 0 {
			e.Exit = Exit{Signal: syscall.Signal(signal % 65)}
		}
		if flags&told != 0 {
			e.Last = &Reading{Height: last}
		}
		if flags&slackGiven != 0 {
			e.Slack = &slack
		}
		if k := sovereign.RefusalKind(kind % 3); k != 0 {
			if k == sovereign.StartRefused && current == 1<<64-1 {
				return // the text names the next height
			}
			e.Refusal = &sovereign.Refusal{Kind: k, Requested: requested, Current: current}
		}
		d := Decide(e)
		if want := rowsFor(e); !strings.Contains(want, outcome(d)) {
			t.Fatalf("%s is decided, want one of: %s\nevidence %+v, last %+v, refusal %+v", outcome(d), want, e, e.Last, e.Refusal)
		}
		if d.Reason == "" || (d.Action == Complete) != (d.Proof != "") || d.Code < 0 || d.Code > 255 || d.Action == Fail && d.Code == 0 {
			t.Fatalf("%+v is no whole decision", d)
		}
	})
}

// outcome is what the table says of a decision: what follows, with the code or the proof.
func outcome(d Decision) string {
	switch d.Action {
	case Complete:
		return fmt.Sprintf("[complete by %s]", d.Proof)
	case Stopped, Fail:
		return fmt.Sprintf("[%s %d]", d.Action, d.Code)
	}
	return fmt.Sprintf("[%s]", d.Action)
}

// rowsFor is the table of the README, row by row, in whole numbers that do not overflow.
func rowsFor(e Evidence) string {
	if e.Exit.Code == 0 && e.Exit.Signal == 0 {
		return rowForSuccess(e)
	}
	own := fmt.Sprintf("[failed %d]", e.Exit.Status())
	if e.Exit.Signal != 0 && e.StopRequested {
		return fmt.Sprintf("[stopped as asked %d]", e.Exit.Status())
	}
	r := e.Refusal
	if r == nil || e.Exit.Signal != 0 || e.Last != nil && e.Last.Height != r.Current {
		return own
	}
	stop, start := r.Kind == sovereign.StopRefused, r.Kind == sovereign.StartRefused
	next := new(big.Int).Add(number(r.Current), big.NewInt(1))
	switch {
	case stop && e.Stop > 0 && r.Requested == e.Stop && r.Current == e.Stop:
		return "[complete by durable height]"
	case stop && e.Stop > 0 && r.Requested == e.Stop && r.Current > e.Stop:
		return "[failed 78]"
	case !start || e.Start == 0 || r.Requested != e.Start || next.Cmp(number(e.Start)) == 0:
		return own
	case e.Stop > 0 && r.Current > e.Stop:
		return "[failed 78]"
	case e.StopRequested:
		return "[stopped as asked 0]"
	case next.Cmp(number(e.Start)) < 0:
		return "[finish the previous version]"
	}
	return "[start without start height]"
}

func rowForSuccess(e Evidence) string {
	const early = "[failed 75]"
	switch {
	case e.StopRequested:
		return "[stopped as asked 0]"
	case e.Stop == 0:
		return early
	case e.Last == nil:
		return "[verify]"
	case e.Last.Height > e.Stop:
		return "[failed 78]"
	}
	missing := e.Stop - e.Last.Height
	// Where the rate decides to the block, rounding may say either.
	risen := 2 * e.Rate * e.Age.Seconds()
	margin := (risen + float64(e.Stop)) * 1e-12
	switch {
	case e.Slack != nil && missing <= *e.Slack:
		return "[complete by height slack]"
	case missing == 0 && !e.ProofNeeded:
		return "[complete by last height read]"
	case e.RateUnknown || missing <= 10 || risen > float64(missing)+margin:
		return "[verify]"
	case risen < float64(missing)-margin:
		return early
	}
	return "[verify]" + early
}

func number(n uint64) *big.Int { return new(big.Int).SetUint64(n) }

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

// A lock file that somebody else wrote is no holder; of one of ours it is known whether its writer lives.
func FuzzLockHolder(f *testing.F) {
	host, err := os.Hostname()
	if err != nil {
		f.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(f.TempDir(), "checkpoint.json.lock"))
	if err != nil {
		f.Fatal(err)
	}
	defer lock.Close()
	for _, seed := range []string{
		"", `{"pid":1,"host":"@"}`, `{"pid":1234567890,"host":"@"}`, `{"pid":7,"host":"elsewhere"}`, `{"pid":-1,"host":"@"}`,
		`{"pid":4294967297,"host":"@"}`, `{"pid":"1"}`, `{"pid":1,"host":"@"}{`, "\x00\x00\x00", `{"PID":0,"host":null}`, "4711\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ReplaceAll(text, "@", host)
		if err := lock.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := lock.WriteAt([]byte(text), 0); err != nil {
			t.Fatal(err)
		}
		got := readHolder(lock)
		if got.Path != lock.Name() || !strings.Contains(got.Error(), lock.Name()) {
			t.Fatalf("%+v does not name %s", got, lock.Name())
		}
		if got.Pid == 0 {
			if got.HolderGone {
				t.Fatalf("nobody is gone: %+v of %q", got, text)
			}
			return
		}
		var h holder
		err := json.Unmarshal([]byte(text[:min(256, len(text))]), &h)
		if err != nil || h.Pid != got.Pid || h.Host != got.Host || h.Pid < 1 {
			t.Fatalf("%+v was read of %q", got, text)
		}
		const pidLimit = 1 << 22 // of Linux
		lives := h.Pid == os.Getpid() || h.Pid == 1
		if got.HolderGone && (h.Host != host || lives) || !got.HolderGone && h.Host == host && h.Pid > pidLimit {
			t.Fatalf("gone %t, and it is process %d on %q", got.HolderGone, h.Pid, h.Host)
		}
	})
}
