# The entrypoint alone: an image to copy /entrypoint from, and one that runs, since it is static.
#
#	docker build -f images/entrypoint.Dockerfile -t rollup-entrypoint .
#
# No "# syntax=" line: every builder of the last years knows all that is used here, and none has to pull a frontend.

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
# Layers hold modification times. Seconds since 1970, for instance those of the commit.
ARG SOURCE_DATE_EPOCH=0
RUN mkdir /out && install -m 0755 bin/entrypoint /out/ && find /out -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM scratch
COPY --from=build /out/ /
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/entrypoint", "healthcheck"]
ENTRYPOINT ["/entrypoint"]
# They come last because they change with every commit.
ARG VERSION=development
ARG REVISION
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="rollup-entrypoint" \
      org.opencontainers.image.description="PID 1 that runs a Sovereign SDK rollup through its hard forks" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
