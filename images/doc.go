// Package images says what must be true of a program so that the kernel and the dynamic loader can run it in the image
// that it lies in. The kernel has one sentence for most of what can be wrong, "no such file or directory", and says it
// only when the program is started.
//
// It also keeps the manifest of an image: what lies in the folders of the versions, by digest, as it was when the image was
// built, and what is different now.
//
// It looks at files alone: it starts nothing, and writes nothing but the manifest. What it holds of a file in memory is
// bounded, whatever the file claims of itself.
package images
