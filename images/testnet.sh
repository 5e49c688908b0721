#!/bin/sh
# Lays the folders of three versions of the stand-in out, each as a layer of an image: images/testnet.sh PROGRAMS PLAN OUT
# PROGRAMS has entrypoint and mock-rollup, PLAN what each version has beside its binary.
set -eu
programs="$1" plan="$2" out="$3"
umask 022

for version in v0 v1 v2; do
	folder="$out/$version/opt/rollup/versions/$version"
	mkdir -p "$folder"
	cp "$plan/$version/"* "$folder/"
	cp "$programs/mock-rollup" "$folder/rollup"
	# This gives each version a digest of its own, as real versions have; a loader does not read it.
	echo "mock-rollup $version" >>"$folder/rollup"
done
ln "$out/v1/opt/rollup/versions/v1/rollup" "$out/v1/opt/rollup/versions/v1/migration"
mkdir -p "$out/program" "$out/volume/data"
cp "$programs/entrypoint" "$out/program/"
chmod 0755 "$out/program/entrypoint" "$out"/v?/opt/rollup/versions/*/rollup
chmod 0644 "$out"/v?/opt/rollup/versions/*/*.*
# Group 0 may write: OpenShift chooses the user.
chmod 0775 "$out/volume/data"
