package main

import (
	"fmt"
	"runtime"
	"slices"
)

// version is set by the linker.
var version = "development"

func versionCommand(p program, args []string) int {
	if len(args) > 0 && slices.Contains([]string{"-h", "--help"}, args[0]) {
		fmt.Fprint(p.stdout, "Usage:\n  entrypoint version\n")
		return 0
	}
	if len(args) > 0 {
		return usageError(p, "", fmt.Errorf("version takes no argument, got %q", args[0]))
	}
	fmt.Fprintf(p.stdout, "entrypoint %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return 0
}
