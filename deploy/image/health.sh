#!/bin/bash
# The image's health check: a policy serves, with the keys of every issuer; the Grafana Gateway runs. The image holds no
# HTTP client; bash can speak to a port.
listen=${TENANTAUTH_ADMIN_LISTEN:-127.0.0.1:9145}
port=${listen##*:}
host=${listen%"$port"}
host=${host%:}
host=${host#[}
host=${host%]}
case $host in '' | '*' | 0.0.0.0) host=127.0.0.1 ;; '::') host=::1 ;; esac
path='/status?ready'
[ "$TENANTAUTH_MODE" != grafana-gateway ] || path=/healthz
exec 3<> "/dev/tcp/$host/$port" || exit 1
printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$path" >&3
read -r _ status _ <&3
[ "$status" = 200 ]
