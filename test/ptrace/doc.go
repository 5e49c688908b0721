// Package ptrace runs a program under ptrace(2) and lets a test act at exactly one of its system calls: kill the
// program there, send it a signal, or make the call fail. Only tests link it.
//
// All threads of the program stop at each entry and each exit, and one hook is called for one stop after the other, so
// there is one order of stops over all threads. A tool that counts for each thread of its own cannot name a point in a
// Go program, whose goroutines wander between threads. Processes that the program starts are not traced.
package ptrace
