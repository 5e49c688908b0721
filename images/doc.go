// Package images says what must be true of a program so that the kernel and the dynamic loader can run it in the image
// that it lies in. The kernel has one sentence for most of what can be wrong, "no such file or directory", and says it
// only when the program is started.
//
// It looks at files alone: it starts nothing and changes nothing. What it reads of a file is bounded, whatever the file
// claims of itself.
package images
