// Package limits knows what the system allows this process and those that it starts: how many processes and threads, how
// many open files, and whether a crash writes a core dump.
//
// The contract. [Reserve] is called once, before anything else is started: after it the Go runtime needs no further
// thread, so that a full pids limit cannot end the program, which would end its container. Nothing here waits for long,
// and nothing is changed but what the name of a function says.
package limits
