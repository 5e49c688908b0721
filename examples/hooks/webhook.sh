#!/bin/sh
# A hook ("before" in a version's entry of the plan): posts to a chat that an upgrade begins. The chat may be down, which
# is no reason to hold the upgrade, so this always succeeds. It needs curl.
#
#   WEBHOOK_URL  gets a POST with {"text": …}, as Slack, Mattermost and Discord (with /slack) take it
set -eu
text() { printf %s "$1" | tr -d '\000-\037' | sed 's/[\\"]/\\&/g'; } # within a string of JSON

message="$(hostname): $ENTRYPOINT_FROM_VERSION has reached its stop height $ENTRYPOINT_HEIGHT, $ENTRYPOINT_TO_VERSION follows"
# The address has a secret in it, and anybody may read arguments, in /proc.
printf 'url = "%s"\n' "${WEBHOOK_URL:?}" | curl --config - --fail --silent --show-error \
	--connect-timeout 5 --max-time 20 --header 'Content-Type: application/json' --output /dev/null \
	--data "{\"text\": \"$(text "$message")\"}" || echo "the webhook did not answer; the upgrade continues" >&2
