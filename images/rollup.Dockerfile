# A rollup with all its versions: a template to copy beside your configs and to edit. README and docs/images.md explain it.
#
#	docker build -f rollup.Dockerfile -t my-rollup --build-arg V0=my-node:0.4 --build-arg V1=my-node:0.5 .
#
# The folder holds, for each version, what its node image does not: v0/ with config.toml and version.json, and where there
# is one genesis.json; v1/ also with migration. Where a node is a file and not an image, put it there too, as rollup, and
# leave out its two lines, "FROM ${V0}" and "COPY --from=v0". A builder of 2022 or later also takes
# --build-context v0=FOLDER for the image of a version.

# glibc, for nodes that were built on Debian 12 or Ubuntu 22.04 and older. gcr.io/distroless/cc-debian12:nonroot is smaller
# and has no shell. scratch is enough for nodes that are static, and alpine only for those that were built for musl.
ARG BASE=debian:bookworm-slim
ARG ENTRYPOINT=rollup-entrypoint
ARG V0=my-node:v0
ARG V1=my-node:v1

FROM ${ENTRYPOINT} AS entrypoint
FROM ${V0} AS v0
FROM ${V1} AS v1

# Each version is put together in a stage, so that it is one layer of the image.
FROM scratch AS files-v0
COPY --from=v0 /app/rollup /opt/rollup/versions/v0/rollup
COPY v0/ /opt/rollup/versions/v0/

FROM scratch AS files-v1
COPY --from=v1 /app/rollup /opt/rollup/versions/v1/rollup
COPY v1/ /opt/rollup/versions/v1/

# A stage, because BASE need not have a shell.
FROM debian:bookworm-slim AS volume
RUN install -d -m 0775 /volume/data

FROM ${BASE}
# A new named volume gets the owner and the mode of this folder. Group 0 is for OpenShift, which chooses the user.
COPY --from=volume --chown=65532:0 /volume/ /
# The oldest first, and the entrypoint after them: a version more, or another entrypoint, leaves every layer before it.
COPY --from=files-v0 / /
COPY --from=files-v1 / /
COPY --from=entrypoint /entrypoint /entrypoint
# What is there now is what runs. BASE may have another user, who may not write.
USER 0:0
RUN ["/entrypoint", "manifest", "write"]
VOLUME /data
USER 65532:65532
# The node's API; the status page.
EXPOSE 12346 9848
# On every address of the container, IPv4 and IPv6: a kubelet's httpGet probe and a scrape come from outside. Anybody who
# reaches the port can read the status. With the host's network, set ENTRYPOINT_LISTEN=127.0.0.1:9848.
ENV ENTRYPOINT_LISTEN=:9848
# The signal is all that an image can set. The time is set where it is run, and 300 s is right: docker run --stop-timeout 300,
# terminationGracePeriodSeconds: 300. Of 113 real nodes that were killed in operation, 7 could not open their state again.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/entrypoint", "healthcheck"]
ENTRYPOINT ["/entrypoint"]
