package limits

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// CoreDumps reports whether a process that we start and that crashes leaves its memory in a file in its working
// directory (core(5)), and gives the pattern of the file's name. A pattern with a path leads elsewhere, and one that
// begins with | hands it to a program.
func CoreDumps() (pattern string, inWorkingDir bool) {
	text, err := os.ReadFile(filepath.Join(real.proc, "sys/kernel/core_pattern"))
	var limit unix.Rlimit
	if err != nil || unix.Getrlimit(unix.RLIMIT_CORE, &limit) != nil {
		return "", false
	}
	pattern = strings.TrimSpace(string(text))
	return pattern, limit.Cur > 0 && staysInWorkingDir(pattern)
}

// staysInWorkingDir: an empty pattern makes "core.PID" or nothing, by another setting.
func staysInWorkingDir(pattern string) bool {
	return !strings.HasPrefix(pattern, "|") && !strings.HasPrefix(pattern, "/")
}
