# OpenResty with tenantauth: the module, the command, the snippets and a default configuration.
#
#   docker build -t tenantauth .
#   docker run -v ./policy:/etc/tenantauth:ro -v ./nginx.conf:/etc/nginx/nginx.conf:ro -p 8081-8083:8081-8083 tenantauth
#
# The user of the container, 10101, must be able to read the policy and the files it names.
#
# The default configuration is nginx/examples/mimir-loki-tempo.conf: backends on the container's own 127.0.0.1, as in
# one Kubernetes pod. A configuration of yours keeps its `pid` in /run/tenantauth, and the server with /status on
# 127.0.0.1:9145, which the health check asks.

ARG RUST_TAG=1.95-bookworm
ARG OPENRESTY_TAG=1.27.1.2-bookworm

# The same Debian as below: a module built against a later glibc would not load there.
FROM rust:${RUST_TAG} AS build
WORKDIR /src
COPY . .
RUN make build && make install PREFIX=/usr/local DESTDIR=/out

FROM openresty/openresty:${OPENRESTY_TAG}
COPY --from=build /out/ /
# The pid and nginx's temporary files go to a directory that the user may write to; /run itself is root's. Logs go to
# the container's output, audit records to stdout and errors to stderr.
RUN useradd --system --uid 10101 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin tenantauth \
    && install -d -o tenantauth -g tenantauth /run/tenantauth \
    && install -d /etc/tenantauth /etc/nginx /var/log/nginx \
    && ln -s /dev/stdout /var/log/nginx/audit.jsonl \
    && ln -s /dev/stderr /var/log/nginx/error.log \
    && sed 's|^pid .*|pid /run/tenantauth/nginx.pid;|' \
        /usr/local/share/tenantauth/examples/mimir-loki-tempo.conf > /etc/nginx/nginx.conf
USER 10101:10101
EXPOSE 8081 8082 8083

# Healthy while a policy serves. The image holds no HTTP client; bash can speak to a port.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9145 && printf 'GET /status?ready HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]

# STOPSIGNAL is inherited: SIGQUIT, which lets open requests finish.
CMD ["openresty", "-p", "/run/tenantauth", "-e", "stderr", "-c", "/etc/nginx/nginx.conf", "-g", "daemon off;"]
