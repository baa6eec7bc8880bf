# syntax=docker/dockerfile:1
# The grapnel binary on a small base. docker build -t grapnel .

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --package grapnel-runtime --bin grapnel && \
    cp target/dist/grapnel /grapnel

FROM debian:bookworm-slim
# Destinations and datastores are reached over TLS with the system's root certificates.
RUN apt-get update && \
    apt-get install --yes --no-install-recommends ca-certificates && \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /grapnel /usr/local/bin/grapnel
USER 65532:65532
EXPOSE 8080 9090
ENTRYPOINT ["grapnel"]
CMD ["--help"]
