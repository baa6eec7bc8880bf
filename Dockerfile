# syntax=docker/dockerfile:1
# Builds the same images as scripts/images, which does not need Docker: a static binary and root certificates in an empty image.
#
#   docker build -t grapnel .                                    api, worker, migrate and the other roles
#   docker build -t grapnel-controller --target controller .     the controller for Kubernetes
#   docker build -t grapnel-loadtest --target loadtest .         the load generator, for helm test

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# With an explicit target the flags do not apply to build scripts and procedural macros, which cannot be static.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    target=$(rustc -vV | sed -n 's/^host: //p') && \
    RUSTFLAGS='-C target-feature=+crt-static --remap-path-prefix=/src=/grapnel --remap-path-prefix=/usr/local/cargo=/cargo' \
    CFLAGS='-ffile-prefix-map=/usr/local/cargo=/cargo' SOURCE_DATE_EPOCH=0 \
    cargo build --locked --profile dist --target "$target" \
        --package grapnel-runtime --bin grapnel --package grapnel-controller --bin grapnel-controller \
        --package grapnel-loadtest --bin grapnel-loadtest && \
    mkdir -p /image/usr/local/bin /image/etc/ssl/certs && \
    cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ && \
    echo 'grapnel:x:65532:65532::/:/sbin/nologin' >/image/etc/passwd && \
    echo 'grapnel:x:65532:' >/image/etc/group && \
    for name in grapnel grapnel-controller grapnel-loadtest; do cp "target/$target/dist/$name" /usr/local/bin/; done

FROM scratch AS base
COPY --from=build /image /
ENV PATH=/usr/local/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532

FROM base AS controller
COPY --from=build /usr/local/bin/grapnel-controller /usr/local/bin/
EXPOSE 9090
ENTRYPOINT ["/usr/local/bin/grapnel-controller"]

FROM base AS loadtest
COPY --from=build /usr/local/bin/grapnel-loadtest /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/grapnel-loadtest"]

# The last stage is the default target.
FROM base AS runtime
COPY --from=build /usr/local/bin/grapnel /usr/local/bin/
EXPOSE 8080 9090
ENTRYPOINT ["/usr/local/bin/grapnel"]
CMD ["--help"]
