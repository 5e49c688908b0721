// Package images says what must be true of a program so that the kernel and the dynamic loader can run it in its image.
// The kernel has one sentence for most of what can be wrong, "no such file or directory", and only says it when the program
// is started.
//
// It also keeps the manifest of an image: the digests of the files in the folders of the versions, as they were when the
// image was built, and what has changed since.
//
// It only looks at files: it starts nothing, and writes nothing but the manifest. What it keeps of a file in memory is
// bounded, whatever the file claims about itself.
package images
