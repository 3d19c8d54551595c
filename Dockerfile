# genwatch in a small image.
#
#   docker build -t genwatch .
#
# BUILDER needs Rust 1.89, a C compiler, make and perl; BASE is what the binary runs on (glibc of the builder's age or newer).
ARG BUILDER=rust:1-bookworm
ARG BASE=debian:bookworm-slim

FROM ${BUILDER} AS builder
WORKDIR /src
# The dependencies first: they change seldom, and take most of the time.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
    && cargo build --release --locked && rm -r src
COPY src src
# Newer than what was built of the placeholders.
RUN touch src/main.rs src/lib.rs && cargo build --release --locked && strip target/release/genwatch

FROM ${BASE}
COPY --from=builder /src/target/release/genwatch /usr/local/bin/genwatch
# A number, so that Kubernetes can tell that it isn't root.
USER 65532:65532
# The first SIGTERM drains and commits.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/genwatch"]
CMD ["--help"]
