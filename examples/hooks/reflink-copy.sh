#!/bin/sh
# A hook ("before" in a version's entry of the plan): keeps a copy of the state from the stop height of the version
# before. The copy shares its blocks with the state (reflinks: XFS, btrfs, bcachefs), so it takes no time and no space at
# first. It needs the cp and sync of GNU coreutils.
#
#   BACKUP_DIR  where the copies are kept, on the same file system (default: beside the storage directory)
#
# A run of it that was killed leaves only a name that ends in .partial, which the next run replaces. The oldest copies are
# yours to delete.
set -eu
state=${ENTRYPOINT_STORAGE_PATH:?the node configs must have storage.path}
name=$(printf %s "$ENTRYPOINT_FROM_VERSION" | tr -c 'A-Za-z0-9._-' _)
dir=${BACKUP_DIR:-$(dirname "$state")}
copy=$dir/backup-$name-$ENTRYPOINT_HEIGHT

if [ -e "$copy" ]; then
	echo "there already is $copy" >&2
	exit 0
fi
rm -rf "$copy.partial"
# One file first: otherwise cp would say the same of every file.
if ! why=$(cp --reflink=always "$state/rollup-version.json" "$copy.partial" 2>&1); then
	rm -f "$copy.partial"
	echo "no copy with reflinks in $dir: it must be on the file system of the state, and that XFS, btrfs or bcachefs: $why" >&2
	exit 1
fi
rm -f "$copy.partial"
if ! cp -a --reflink=always "$state" "$copy.partial"; then
	rm -rf "$copy.partial"
	exit 1 # the run ends before the upgrade, with nothing changed
fi
sync -f "$copy.partial" # a copy that a power cut takes away is none
mv -T "$copy.partial" "$copy"
sync -f "$dir"
echo "copied the state to $copy" >&2
