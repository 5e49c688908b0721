package sovereign

// WritesBesideConfig reports whether a node writes files of that name into the directory of its config: some versions keep
// a cache there. What such a file has in it says nothing of whether the version is the right one.
func WritesBesideConfig(name string) bool { return name == "evm_pinned_cache.json" }
