# Three versions of the stand-in node under the entrypoint, with two upgrades within half a minute:
#
#	docker build -f images/testnet.Dockerfile -t rollup-testnet .
#	docker run --rm -it -v demo:/data rollup-testnet
#
# Each version is a layer, the oldest first. FROM scratch is enough because the stand-in is static; a real node needs the
# base of rollup.Dockerfile. The first stage is that of entrypoint.Dockerfile, so that one build serves both.

# The legacy builder does not set it.
ARG BUILDPLATFORM

# The compiler runs on the builder's machine, whatever machine the image is for.
FROM --platform=${BUILDPLATFORM:-linux/amd64} golang:1.26-bookworm AS build
# Where modules come from if not from Go's default proxy: --build-arg GOPROXY=https://proxy.example.org
ARG GOPROXY
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=development
ARG TARGETARCH
# Without TARGETARCH it is built for the builder's machine.
RUN GOARCH="$TARGETARCH" make build VERSION="$VERSION"
ARG SOURCE_DATE_EPOCH=0
# Whole trees are copied into the image, so that it has the modification times of their folders, too. The manifest is
# written here and not in the image, by a program for the builder's machine, so that an image for another one needs no
# emulation.
RUN set -e; images/testnet.sh bin images/testnet /out; mkdir -p /all/versions /out/program/opt/rollup; \
    cp -al /out/v*/opt/rollup/versions/* /all/versions/; \
    make build VERSION="$VERSION"; \
    bin/entrypoint manifest write --root /all --output /out/program/opt/rollup/manifest.json \
        --label org.opencontainers.image.version="$VERSION"; \
    find /out -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM scratch
COPY --from=build /out/v0/ /
COPY --from=build /out/v1/ /
COPY --from=build /out/v2/ /
COPY --from=build /out/program/ /
# A new named volume gets the owner and the mode of this folder. Group 0 is for OpenShift, which chooses the user.
COPY --from=build --chown=65532:0 /out/volume/ /
VOLUME /data
USER 65532:65532
# The API of the node; the entrypoint's status page.
EXPOSE 12346 9848
ENV ENTRYPOINT_LISTEN=:9848
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/entrypoint", "healthcheck"]
ENTRYPOINT ["/entrypoint"]
ARG VERSION=development
ARG REVISION
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="rollup-testnet" \
      org.opencontainers.image.description="Three versions of a stand-in node under rollup-entrypoint" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
