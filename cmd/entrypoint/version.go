package main

import (
	"fmt"
	"runtime"
)

// version is set by the linker.
var version = "development"

// versionCommand prints the version of this program, and what it was built with and for.
func versionCommand(flags *flagSet) func(p program) int {
	return func(p program) int {
		fmt.Fprintf(p.stdout, "entrypoint %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return 0
	}
}
