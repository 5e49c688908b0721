package limits

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// system is where the kernel shows what we look at: /proc and /sys/fs/cgroup, except in tests.
type system struct{ proc, cgroup string }

var real = system{"/proc", "/sys/fs/cgroup"}

// room is one limit for processes and threads, and how many more it allows.
type room struct {
	words string
	left  uint64
}

// Processes words the limit for processes and threads that leaves the least room, such as "pids limit 64" or "process
// limit 100 of user 1000 (ulimit -u)"; empty if none is known.
func Processes() string {
	r, _ := real.processes()
	return r.words
}

// processes is the limit that leaves the least room.
func (s system) processes() (least room, known bool) {
	for _, r := range append(s.controlGroups(), s.user()...) {
		if !known || r.left < least.left {
			least, known = r, true
		}
	}
	return least, known
}

// controlGroups are the limits of the control group that we are in, and of those above it as far as they can be seen
// (cgroups(7)). In a container the one at the root is ours, whatever /proc calls it.
func (s system) controlGroups() (all []room) {
	text, err := os.ReadFile(filepath.Join(s.proc, "self/cgroup"))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		// hierarchy:controllers:path; version 2 has no controllers there.
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		root := s.cgroup
		switch {
		case slices.Contains(strings.Split(fields[1], ","), "pids"):
			root = filepath.Join(s.cgroup, "pids")
		case fields[1] != "":
			continue
		}
		for dir := path.Clean("/" + fields[2]); ; dir = path.Dir(dir) {
			if r, ok := pidsOf(filepath.Join(root, dir)); ok {
				all = append(all, r)
			}
			if dir == "/" {
				break
			}
		}
	}
	return all
}

// pidsOf reads the limit of one control group. A root has none, and "max" is none.
func pidsOf(dir string) (room, bool) {
	limit, err := readNumber(filepath.Join(dir, "pids.max"))
	if err != nil {
		return room{}, false
	}
	used, err := readNumber(filepath.Join(dir, "pids.current"))
	if err != nil {
		return room{}, false
	}
	return room{fmt.Sprintf("pids limit %d", limit), limit - min(used, limit)}, true
}

func readNumber(file string) (uint64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

// user is RLIMIT_NPROC, which counts what all processes of a user have; root and CAP_SYS_RESOURCE are exempt
// (getrlimit(2)). Only those that /proc shows can be counted, so there may be less room than this says.
func (s system) user() []room {
	var limit unix.Rlimit
	uid := os.Getuid()
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &limit); err != nil || limit.Cur > math.MaxInt32 || uid == 0 {
		return nil
	}
	used := uint64(0)
	files, _ := filepath.Glob(filepath.Join(s.proc, "[0-9]*", "status")) // the pattern is right
	for _, file := range files {
		used += threadsOf(file, uid)
	}
	return []room{{fmt.Sprintf("process limit %d of user %d (ulimit -u)", limit.Cur, uid), limit.Cur - min(used, limit.Cur)}}
}

// threadsOf reads a file status of proc(5): how many threads the process has, 0 if it is another user's or has ended.
func threadsOf(file string, uid int) uint64 {
	text, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer text.Close()
	for lines := bufio.NewScanner(text); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) < 2:
		case fields[0] == "Uid:" && fields[1] != strconv.Itoa(uid):
			return 0
		case fields[0] == "Threads:":
			n, _ := strconv.ParseUint(fields[1], 10, 64)
			return n
		}
	}
	return 0
}
