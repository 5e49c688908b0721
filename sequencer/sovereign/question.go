package sovereign

import (
	"bytes"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// sentences are the words in which nodes refuse a wrong start height. {N} is the start height that they were given, {E}
// the one that they expected, the durable height plus one. N comes first.
var sentences = []string{
	"The requested start_at_rollup_height: {N}, is different than expected height {E}", // the SDK
	"start_at_height ({N}) != current_height + 1 ({E})",                                // the stand-in node of sov-rollup-manager
}

// arguments precede the start height when a node writes its own command line, which is not an answer in unknown words.
var arguments = []string{
	"--start-at-rollup-height ", "--start-at-rollup-height=", "--start-at-rollup-height, ", "start_at_rollup_height: Some(",
}

// QuestionEnv returns what an asked node needs last in its environment: no colours, no backtrace, which takes longer
// than the answer itself, and a log that shows errors. RUST_LOG=off would hide a refusal that is only logged.
func QuestionEnv() []string {
	return []string{"NO_COLOR=1", "RUST_BACKTRACE=0", "RUST_LOG=error"}
}

// Answer is what a node has said so far to a [Question].
type Answer struct {
	// Height is the durable height of the state, in blocks: the expected height minus one. It is valid if Known.
	Height uint64
	// Known: the node named its height in a known sentence.
	Known bool
	// Contradicts: two such sentences name different heights. Known is false then.
	Contradicts bool
	// Echoed: the node wrote the nonce in unknown words that are not its own command line.
	Echoed bool
}

func (a *Answer) add(height uint64) {
	switch {
	case a.Contradicts:
	case !a.Known:
		a.Known, a.Height = true, height
	case a.Height != height:
		*a = Answer{Contradicts: true, Echoed: a.Echoed}
	}
}

// Question reads what a node writes after it was started with a start height that cannot be right, and finds the height
// that it expected instead. That start height is a nonce. Only a sentence that contains it is an answer, so no text
// that somebody got into a log, a transaction or a database before the node was asked can be taken for one.
//
// The two streams are read separately, in pieces of any size and in bounded memory, however long they are. A number at
// the very end of the output may be torn, so it is only used once something follows it.
type Question struct {
	mu             sync.Mutex
	answer         Answer
	stdout, stderr *stream
}

// NewQuestion returns a Question for a node that was started with the start height nonce, which must be random and have
// many digits.
func NewQuestion(nonce uint64) *Question {
	q := &Question{}
	q.stdout, q.stderr = newStream(q, nonce), newStream(q, nonce)
	return q
}

// Stdout returns the writer for what the node writes to its standard output. It never returns an error.
func (q *Question) Stdout() io.Writer { return q.stdout }

// Stderr is like Stdout, for the standard error. The two may be written to at the same time.
func (q *Question) Stderr() io.Writer { return q.stderr }

// Answer returns the answer so far. It may be called at any time.
func (q *Question) Answer() Answer {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.answer
}

// stream looks for sentences in one of the node's streams.
type stream struct {
	q      *Question
	put    func(text []byte) // removes everything but the words, and passes them to next
	nonce  string
	known  []sentence
	recent []byte     // the latest bytes, enough for the nonce and what must precede it
	enough int        // how many bytes of recent that is
	open   []sentence // what is left to read of the sentences that the latest nonce may be in
}

// sentence is an entry of the table, or what is left to read of it.
type sentence struct {
	before, between, after string
	expected               number
}

// number is a height that is read digit by digit.
type number struct {
	value    uint64
	begun    bool // there was a digit
	ended    bool // something else has followed
	tooLarge bool
}

func (n *number) append(digit byte) {
	d := uint64(digit - '0')
	n.begun = true
	n.tooLarge = n.tooLarge || n.value > (math.MaxUint64-d)/10
	n.value = n.value*10 + d
}

func newStream(q *Question, nonce uint64) *stream {
	s := &stream{q: q, nonce: strconv.FormatUint(nonce, 10)}
	for _, text := range sentences {
		before, rest, _ := strings.Cut(text, "{N}")
		between, after, _ := strings.Cut(rest, "{E}")
		s.known = append(s.known, sentence{before: before, between: between, after: after})
		s.enough = max(s.enough, 1+len(before)+len(s.nonce))
	}
	for _, before := range arguments {
		s.enough = max(s.enough, 1+len(before)+len(s.nonce))
	}
	s.put = newPlainText(dropQuotes(foldBlanks(s.nextRune)))
	return s
}

// Write reads the next piece of the stream.
func (s *stream) Write(text []byte) (int, error) {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	s.put(text)
	return len(text), nil
}

func (s *stream) nextRune(r rune) {
	if r < 0x80 {
		s.next(byte(r))
		return
	}
	for _, c := range []byte(string(r)) {
		s.next(c)
	}
}

// next reads one byte of plain text. A nonce is only seen when the byte after it is not a digit. The digits of the
// expected height belong to their sentence, even if they are those of the nonce.
func (s *stream) next(c byte) {
	if len(s.open) > 0 {
		s.readOn(c)
	} else if !isDigit(c) && s.endsWithNonce() && !s.endsWithArgument() {
		for _, known := range s.known {
			if bytes.HasSuffix(s.recent[:len(s.recent)-len(s.nonce)], []byte(known.before)) {
				s.open = append(s.open, known)
			}
		}
		s.readOn(c)
	}
	if len(s.recent) > 2*s.enough {
		s.recent = append(s.recent[:0], s.recent[len(s.recent)-s.enough:]...)
	}
	s.recent = append(s.recent, c)
}

// endsWithNonce reports whether the latest digits are the nonce, whole and with no other digit before it.
func (s *stream) endsWithNonce() bool {
	before, found := bytes.CutSuffix(s.recent, []byte(s.nonce))
	return found && (len(before) == 0 || !isDigit(before[len(before)-1]))
}

// endsWithArgument reports whether the latest nonce is the node's own argument.
func (s *stream) endsWithArgument() bool {
	before := s.recent[:len(s.recent)-len(s.nonce)]
	return slices.ContainsFunc(arguments, func(words string) bool { return bytes.HasSuffix(before, []byte(words)) })
}

// readOn drops the sentences that do not continue with c. If none is left, the nonce is in unknown words.
func (s *stream) readOn(c byte) {
	left := s.open[:0]
	for _, reading := range s.open {
		continues, complete := reading.next(c)
		if complete {
			if height := reading.expected; height.value > 0 && !height.tooLarge {
				s.q.answer.add(height.value - 1)
			}
			s.open = s.open[:0]
			return
		}
		if continues {
			left = append(left, reading)
		}
	}
	s.open = left
	s.q.answer.Echoed = s.q.answer.Echoed || len(left) == 0
}

// next takes c as the next byte after the nonce. The sentence is complete with the last byte of its words or, if it
// ends with the number, with the byte after that.
func (s *sentence) next(c byte) (continues, complete bool) {
	switch {
	case s.between != "":
		continues = s.between[0] == c
		s.between = s.between[1:]
		return continues, false
	case isDigit(c) && !s.expected.ended:
		s.expected.append(c)
		return true, false
	case !s.expected.begun:
		return false, false
	case s.after == "":
		return false, true
	}
	s.expected.ended = true
	continues = s.after[0] == c
	s.after = s.after[1:]
	return continues, continues && s.after == ""
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
