package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// cgroupRoot is where our control group is seen (cgroups(7)).
var cgroupRoot = controlGroup("/proc/self/cgroup", "/sys/fs/cgroup")

// controlGroup gives the directory of our own control group of version 2, if there is one below root, as for a service of
// systemd. In a container it is root itself, whatever /proc calls it.
func controlGroup(list, root string) string {
	text, _ := os.ReadFile(list)
	for line := range strings.Lines(string(text)) {
		if name, found := strings.CutPrefix(strings.TrimSpace(line), "0::/"); found {
			own := filepath.Join(root, name)
			if _, err := os.Stat(filepath.Join(own, "memory.events")); err == nil {
				return own
			}
		}
	}
	return root
}

// memoryKills returns how many processes in our container the kernel has killed because memory ran out. It is unknown
// if root is not mounted; outside a container nothing is counted there.
func memoryKills(root string) (n uint64, known bool) {
	return memoryCount(root, "oom_kill")
}

// memoryCount returns one of the counters of memory: of cgroup v2, or else of v1.
func memoryCount(root, key string) (n uint64, known bool) {
	for _, file := range []string{
		"memory.events",             // cgroup v2
		"memory/memory.oom_control", // v1
	} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if value, found := strings.CutPrefix(line, key+" "); found {
				n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
				return n, err == nil
			}
		}
	}
	return 0, false
}

// outOfMemory reports whether a process that sig ended was killed because memory ran out: the kernel has counted more
// kills than before.
func outOfMemory(root string, sig syscall.Signal, before uint64) bool {
	if sig != syscall.SIGKILL {
		return false
	}
	now, known := memoryKills(root)
	return known && now > before
}

// memoryInWords says what the kernel has counted since the container began; empty if that is nothing, or not known. The
// counters of a container that is gone are gone with it.
func memoryInWords(root string) string {
	kills, known := memoryKills(root)
	text, _ := os.ReadFile(filepath.Join(root, "memory/memory.failcnt")) // v1
	hits, _ := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	switch groups, _ := memoryCount(root, "oom_group_kill"); {
	case groups > 0: // v2, with memory.oom.group
		return fmt.Sprintf("since this container began, the kernel has killed %d of its processes because memory ran out, and whole groups of them, times: %d", kills, groups)
	case kills > 0:
		return fmt.Sprintf("since this container began, the kernel has killed %d of its processes because memory ran out", kills)
	case !known && hits > 0: // before Linux 4.13 kills are not counted
		return fmt.Sprintf("since this container began, it has reached the limit of its memory, times: %d", hits)
	}
	return ""
}
