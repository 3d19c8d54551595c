# genwatch in a small image.
#
#   docker build -t genwatch .
#
# BUILDER needs Rust 1.89, a C and a C++ compiler, make and perl.
ARG BUILDER=rust:1-trixie
# Where /genwatch and /licenses come from: the stage below, or an image that holds what was built elsewhere (scripts/images/make).
# BuildKit then leaves the builder out.
ARG BINARY=builder
# What the binary runs on: a Debian with a glibc as new as the builder's, and libgcc.
ARG BASE=debian:trixie-slim

FROM ${BUILDER} AS builder
WORKDIR /src
# The dependencies first: they change seldom, and take most of the time.
COPY Cargo.toml Cargo.lock ./
COPY crates/core/Cargo.toml crates/core/
RUN mkdir src crates/core/src crates/core/benches && touch src/lib.rs crates/core/src/lib.rs crates/core/benches/core.rs && echo 'fn main() {}' >src/main.rs
RUN cargo build --release --locked && rm -r src crates/*/src
COPY crates crates
COPY src src
# touch: cargo goes by time stamps, and those of the sources are older than what was built of the placeholders.
RUN touch src/main.rs src/lib.rs crates/*/src/lib.rs && cargo build --release --locked && strip -o /genwatch target/release/genwatch
# Of the C libraries that are linked in.
RUN mkdir /licenses && cd "$CARGO_HOME"/registry/src/*/ \
    && cp rdkafka-sys-*/librdkafka/LICENSES.txt /licenses/librdkafka \
    && cp openssl-src-*/openssl/LICENSE.txt /licenses/openssl

FROM ${BINARY} AS binary

FROM ${BASE}
# Whom to trust where brokers or databases have certificates of a public CA.
RUN apt-get update -q \
    && apt-get install -q -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY --from=binary /genwatch /usr/local/bin/genwatch
COPY --from=binary /licenses /usr/share/doc/genwatch/
COPY LICENSE /usr/share/doc/genwatch/
# Where `bench` leaves its results: a new volume takes over the owner of the folder on which it is mounted.
RUN install -d -o 65532 -g 65532 /results
# A number, so that Kubernetes can tell that it isn't root. Nothing is written but results, into a volume: the root file
# system may be read-only.
USER 65532:65532
# Where a worker that is told --http 0.0.0.0:8080 serves its health and metrics.
EXPOSE 8080
# For a worker; switch it off for other commands (--no-healthcheck). Alive is asked, not ready: a worker that waits for the
# cluster is well.
HEALTHCHECK --interval=5s --timeout=4s --start-period=20s --retries=3 CMD ["/usr/local/bin/genwatch", "health"]
# The first SIGTERM drains and commits.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/genwatch"]
CMD ["--help"]
