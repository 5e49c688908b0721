#!/bin/sh
# A hook ("before" in a version's entry of the plan): has an HTTP API take a snapshot of the volume. Unless the API answers
# 2xx it fails, which ends the run before the upgrade. It needs curl.
#
#   SNAPSHOT_URL    gets a POST with {"name": …, "height": …}, and must answer only once the snapshot exists
#   SNAPSHOT_TOKEN  optional: sent as "Authorization: Bearer …"
#
# If your API only accepts the request, ask it here until the snapshot exists: the next version writes to the state as
# soon as this script has ended. The hook may run more than once for one upgrade, so give your API a name that it
# recognises.
set -eu
: "${SNAPSHOT_URL:?}"
text() { printf %s "$1" | tr -d '\000-\037' | sed 's/[\\"]/\\&/g'; } # within a string of JSON

# A snapshot of a block device has only what has reached it.
sync -f "${ENTRYPOINT_STORAGE_PATH:?the node configs must have storage.path}"

# The token comes from standard input: anybody may read arguments, in /proc.
printf '%s\n' "${SNAPSHOT_TOKEN:+Authorization: Bearer $SNAPSHOT_TOKEN}" | curl --fail --silent --show-error \
	--connect-timeout 10 --max-time 600 --retry 3 --retry-connrefused \
	--header @- --header 'Content-Type: application/json' --output /dev/null \
	--data "{\"name\": \"$(text "$ENTRYPOINT_FROM_VERSION")-$ENTRYPOINT_HEIGHT\", \"height\": $ENTRYPOINT_HEIGHT}" \
	"$SNAPSHOT_URL"
echo "snapshot taken at height $ENTRYPOINT_HEIGHT" >&2
