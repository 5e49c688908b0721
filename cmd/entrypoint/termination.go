package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/sequencer"
)

const (
	terminationFlag = "termination-log"
	// kubernetesTermination is where Kubernetes looks for the reason of a container's end, and shows it in the pod's
	// status. It mounts an empty file there; where nothing is there nobody looks.
	kubernetesTermination = "/dev/termination-log"
	// terminationLimit is in bytes: of more Kubernetes keeps a part.
	terminationLimit = 4096
	// terminationTimeout bounds the write: on a file system that hangs it never ends, and the exit must not wait.
	terminationTimeout = 2 * time.Second
	// terminationStart begins each message, and so tells our files from those that must not be overwritten.
	terminationStart = "entrypoint: exit code "
	// longLine is how many bytes of a line on stderr are kept where not everything fits.
	longLine = 300
)

// terminationFile is where a termination message goes.
type terminationFile struct {
	path string // empty: nowhere
	// asked: somebody has named it, and expects it to be written.
	asked bool
}

// terminationOf reads where the message goes, also where the arguments could not be read to their end.
func terminationOf(flags *flagSet) terminationFile {
	path := kubernetesTermination
	f := flags.Lookup(terminationFlag)
	fromEnv, set := os.LookupEnv(envName(terminationFlag))
	switch {
	case f != nil && f.Changed:
		path = f.Value.String()
	case set:
		path = fromEnv
	}
	if c := flags.Lookup("checkpoint-file"); c != nil && path != "" && sameName(path, c.Value.String()) {
		return terminationFile{} // the check of the flags refuses it
	}
	return terminationFile{path: path, asked: path != kubernetesTermination}
}

// sameName reports whether two paths are spelt alike, apart from dots and slashes.
func sameName(a, b string) bool { return filepath.Clean(a) == filepath.Clean(b) }

// write puts the message into the file, in two seconds or not at all. Where nobody has named a file that is no error.
func (t terminationFile) write(message string) error {
	if t.path == "" {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- t.replace(message) }()
	var err error
	select {
	case err = <-done:
	case <-time.After(terminationTimeout):
		err = fmt.Errorf("%s: the file system does not answer", t.path)
	}
	if !t.asked {
		return nil
	}
	return err
}

// replace overwrites the file in place, because a file that is mounted cannot be replaced. It opens nothing but a regular
// file, and leaves one alone that has other content: a name, or a symbolic link, that leads to a checkpoint is a mistake.
func (t terminationFile) replace(message string) error {
	info, err := os.Stat(t.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !t.asked:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err //nolint:wrapcheck // it names the operation and the file
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file", t.path)
	}
	flags := os.O_RDWR | unix.O_NONBLOCK
	if t.asked {
		flags |= os.O_CREATE
	}
	file, err := os.OpenFile(t.path, flags, 0o644)
	if err != nil {
		return err //nolint:wrapcheck // it names the operation and the file
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", t.path)
	}
	if !isOurs(file) {
		return fmt.Errorf("%s holds something else and was left as it is: name a file of its own", t.path)
	}
	if err := file.Truncate(0); err != nil {
		return err //nolint:wrapcheck // it names the operation and the file
	}
	_, err = file.WriteAt([]byte(message), 0)
	return err //nolint:wrapcheck // it names the operation and the file
}

// isOurs reports whether the file is empty or has an earlier message.
func isOurs(file io.ReaderAt) bool {
	head := make([]byte, len(terminationStart))
	n, err := file.ReadAt(head, 0)
	return (err == nil || errors.Is(err, io.EOF)) && (n == 0 || bytes.Equal(head[:n], []byte(terminationStart)))
}

// terminationMessage words a failure for people who see nothing else: at most 4096 bytes of UTF-8.
func terminationMessage(f *sequencer.Failure) string {
	cause := ""
	if f.Err != nil {
		cause = ": " + printable(f.Err.Error())
	}
	head := fmt.Sprintf("%s%d: %s", terminationStart, f.Code, printable(f.What))
	rest := "\n"
	if heights := heightsInWords(f); heights != "" {
		rest += heights + "\n"
	}
	for _, part := range [][2]string{{"safe: ", f.Safe}, {"next: ", f.ToDo()}} {
		if part[1] != "" {
			rest += part[0] + printable(part[1]) + "\n"
		}
	}
	quote := lastWords(f.Stderr, terminationLimit-len(head)-len(cause)-len(rest))
	// The cause comes after stderr, which the log has too, and before the sentence, which says what to do.
	cause = cutMiddle(cause, terminationLimit-len(head)-len(rest)-len(quote))
	return cutMiddle(head+cause+rest+quote, terminationLimit)
}

// heightsInWords says where the chain is.
func heightsInWords(f *sequencer.Failure) string {
	if f.Version == nil {
		return ""
	}
	last := "none known"
	if f.Height != nil {
		last = fmt.Sprintf("%d was the last one known", *f.Height)
	}
	to := "without end"
	if f.Stop > 0 {
		to = fmt.Sprintf("to %d", f.Stop)
	}
	return fmt.Sprintf("heights: %s; version %d is from %d %s", last, *f.Version, f.Start, to)
}

// lastWords quotes the last lines of stderr in at most limit bytes: of long lines the middle is left out, then the
// earlier ones are.
func lastWords(stderr string, limit int) string {
	const title = "stderr:\n"
	if stderr == "" {
		return ""
	}
	lines := strings.Split(printable(stderr), "\n")
	length := func() int { return len(title) + len("  \n")*len(lines) + len(strings.Join(lines, "")) }
	if length() > limit {
		for i := range lines {
			lines[i] = cutMiddle(lines[i], longLine)
		}
	}
	for len(lines) > 0 && length() > limit {
		lines = lines[1:]
	}
	if len(lines) == 0 {
		return ""
	}
	return title + "  " + strings.Join(lines, "\n  ") + "\n"
}

// omitted replaces what was cut out.
const omitted = " […] "

// cutMiddle gives text in at most limit bytes, without its middle where it is longer. It cuts between characters.
func cutMiddle(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	keep := limit - len(omitted)
	if keep < 0 {
		return ""
	}
	front, back := (keep+1)/2, len(text)-keep/2
	for front > 0 && !utf8.RuneStart(text[front]) {
		front--
	}
	for back < len(text) && !utf8.RuneStart(text[back]) {
		back++
	}
	return text[:front] + omitted + text[back:]
}

// printable is text in UTF-8 and without control characters, which a terminal that shows a pod's status would obey.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}

// terminateUsage reports a mistake on the command line. Arguments and variables may be secret, and more people may see a
// pod's status than its log: they are not quoted.
func terminateUsage(p program, flags *flagSet, err error) {
	f := &sequencer.Failure{
		Code: sequencer.CodeUsage, What: "the command line or the environment is wrong", Err: errors.New(flags.withoutValues(err)),
		Safe: "nothing was started", Next: "fix the arguments or the " + envPrefix + " variables of the container: 'entrypoint run --help' lists them",
	}
	if err := terminationOf(flags).write(terminationMessage(f)); err != nil {
		fmt.Fprintf(p.stderr, "entrypoint: termination message not written: %s\n", err)
	}
}

// withoutValues words a usage error with the names of flags and variables and without any value. Values are what is in
// quotes, but for names of flags, and what pflag repeats of an argument that it cannot read at all.
func (fs *flagSet) withoutValues(err error) string {
	var unknown *pflag.NotExistError
	var syntax *pflag.InvalidSyntaxError
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "" || errors.As(err, &syntax) {
		return "an argument is no flag of ours: arguments for the node go after --"
	}
	known := map[string]bool{}
	fs.VisitAll(func(f *pflag.Flag) {
		known["--"+f.Name], known["-"+f.Shorthand+", --"+f.Name], known[envName(f.Name)] = true, true, true
	})
	for _, name := range commandNames() {
		known[name] = true
	}
	var b strings.Builder
	for text := err.Error(); text != ""; {
		quote := strings.IndexByte(text, '"')
		if quote < 0 {
			return b.String() + text
		}
		end := quote + 1 + closingQuote(text[quote+1:])
		if inside := text[quote+1 : end]; known[inside] {
			b.WriteString(text[:quote] + `"` + inside + `"`)
		} else {
			b.WriteString(text[:quote] + `"…"`)
		}
		text = text[min(end+1, len(text)):]
	}
	return b.String()
}

// closingQuote is where the quoted string ends with which text continues, as strconv.Quote writes it.
func closingQuote(text string) int {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(text)
}
