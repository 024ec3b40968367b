# OpenResty with tenantauth: a gateway in front of Mimir, Loki and Tempo, or the Grafana Gateway. docs/install.md says
# how to run it. The same for amd64 and arm64: `docker buildx build --platform linux/amd64,linux/arm64 .`

ARG RUST_TAG=1.95.0-bookworm
ARG OPENRESTY_TAG=1.29.2.3-bookworm

# The same Debian as below: a module built against a later glibc would not load there.
FROM rust:${RUST_TAG} AS build
WORKDIR /src

# The dependencies first, under stand-ins of our own sources: a layer that changes with Cargo.lock alone.
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir -p src/bin \
    && echo 'fn main() {}' > src/bin/tenantauth.rs \
    && echo '//! None of ours.' > src/lib.rs \
    && cargo build --release --locked --no-default-features --features allocator --bin tenantauth --target-dir target/command \
    && cargo rustc --release --locked --lib --crate-type cdylib \
    && cargo clean --release --locked --package tenantauth --target-dir target/command \
    && cargo clean --release --locked --package tenantauth

COPY Makefile ./
COPY src src
COPY lua lua
COPY nginx nginx
COPY deploy/image deploy/image
RUN make build && make install install-image PREFIX=/usr/local DESTDIR=/out

FROM openresty/openresty:${OPENRESTY_TAG}
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="tenantauth" \
    org.opencontainers.image.description="Authorization for Grafana OSS over Mimir, Loki and Tempo, inside OpenResty" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/ /
# Written while it runs are two directories: nginx's temporary files, and what is kept over a restart.
RUN useradd --uid 10101 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin tenantauth \
    && install -d -o tenantauth -g tenantauth /run/tenantauth \
    && install -d -o tenantauth -g tenantauth -m 0700 /var/lib/tenantauth \
    && install -d /etc/tenantauth
USER 10101:10101
EXPOSE 8080 8081 8082 8083 8084 9145

HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/usr/local/bin/tenantauth-health"]
# Open requests are finished.
STOPSIGNAL SIGQUIT
ENTRYPOINT ["/usr/local/bin/tenantauth-entrypoint"]
