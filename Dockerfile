# genwatch in a small image.
#
#   docker build -t genwatch .
#
# BUILDER needs Rust 1.89, a C and a C++ compiler, make and perl.
ARG BUILDER=rust:1-trixie
# The source of /genwatch and /licenses: the stage below, or an image with a binary built elsewhere
# (scripts/images/make). BuildKit then skips the builder.
ARG BINARY=builder
# The base at run time: a Debian with a glibc at least as new as the builder's, and libgcc.
ARG BASE=debian:trixie-slim

FROM ${BUILDER} AS builder
WORKDIR /src
# The dependencies first: they seldom change, and take most of the time.
COPY Cargo.toml Cargo.lock build.rs ./
COPY crates/bench/Cargo.toml crates/bench/
COPY crates/core/Cargo.toml crates/core/
COPY crates/kafka/Cargo.toml crates/kafka/
COPY crates/oracle/Cargo.toml crates/oracle/
RUN mkdir -p src/bin && for crate in . crates/*; do mkdir -p $crate/src && touch $crate/src/lib.rs; done && echo 'fn main() {}' | tee src/main.rs >src/bin/genwatch-bare.rs && mkdir crates/core/benches && touch crates/core/benches/core.rs
RUN cargo build --release --locked && rm -r src crates/*/src
COPY crates crates
COPY src src
# touch: cargo compares time stamps, and the sources' are older than the build of the placeholders.
RUN touch src/main.rs src/bin/*.rs src/lib.rs crates/*/src/lib.rs && cargo build --release --locked && for program in genwatch genwatch-bare; do strip -o /$program target/release/$program; done
# The licences of the linked C libraries.
RUN mkdir /licenses && cd "$CARGO_HOME"/registry/src/*/ \
    && cp rdkafka-sys-*/librdkafka/LICENSES.txt /licenses/librdkafka \
    && cp openssl-src-*/openssl/LICENSE.txt /licenses/openssl

FROM ${BINARY} AS binary

FROM ${BASE}
# CAs to trust, for brokers or databases with certificates of a public CA.
RUN apt-get update -q \
    && apt-get install -q -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
# genwatch-bare is what `bench drain` compares with.
COPY --from=binary /genwatch /genwatch-bare /usr/local/bin/
COPY --from=binary /licenses /usr/share/doc/genwatch/
COPY LICENSE /usr/share/doc/genwatch/
# `bench` leaves its results here: a new volume takes over the owner of the folder on which it is mounted.
RUN install -d -o 65532 -g 65532 /results
# A number, so that Kubernetes can see that it isn't root. Only results are written, into a volume: the root file system
# may be read-only.
USER 65532:65532
# A worker with --http 0.0.0.0:8080 serves its health and metrics here.
EXPOSE 8080
# For a worker; switch it off for other commands (--no-healthcheck). It asks for alive, not for ready: a worker that
# waits for the cluster is healthy.
HEALTHCHECK --interval=5s --timeout=4s --start-period=20s --retries=3 CMD ["/usr/local/bin/genwatch", "health"]
# The first SIGTERM drains and commits.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/genwatch"]
CMD ["--help"]
