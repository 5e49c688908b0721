package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cgroupRoot is where a container sees the control groups that it is in (cgroups(7)).
const cgroupRoot = "/sys/fs/cgroup"

// memoryKills returns how many processes in our container the kernel has killed for want of memory. It is not known
// where root is not mounted; outside of a container nothing is counted there.
func memoryKills(root string) (n uint64, known bool) {
	for _, file := range []string{
		"memory.events",             // cgroup v2
		"memory/memory.oom_control", // v1
	} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if value, found := strings.CutPrefix(line, "oom_kill "); found {
				n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
				return n, err == nil
			}
		}
	}
	return 0, false
}
