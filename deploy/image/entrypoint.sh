#!/bin/sh
# Starts the gateway (or the Grafana Gateway) of the image: looks at the policy, writes nginx's configuration from the
# environment, and becomes nginx. With arguments it runs them instead: `docker run IMAGE tenantauth routes`.
# `render` as the only argument writes the configuration and says where.
#
# docs/install.md lists the variables.
set -eu
export LC_ALL=C

prefix=${TENANTAUTH_PREFIX:-/usr/local}
run=${TENANTAUTH_RUN_DIR:-/run/tenantauth}
own=${TENANTAUTH_NGINX_CONF:-/etc/nginx/nginx.conf}
policy=${TENANTAUTH_POLICY:-/etc/tenantauth}
# Empty: nothing is kept.
state=${TENANTAUTH_STATE_DIR-/var/lib/tenantauth}
templates=$prefix/share/tenantauth/image

say() { printf 'tenantauth: %s\n' "$*" >&2; }
refuse() {
    say "$1"
    [ -z "${2:-}" ] || printf '  help: %s\n' "$2" >&2
    exit 1
}

# The values end up in nginx's configuration: nothing that means something there passes.
require_plain() {
    case $2 in
        *[!]A-Za-z0-9._:/@[-]*) refuse "$1: \`$2\` holds a character that is not allowed" "letters, digits and . _ - : / [ ] @" ;;
        *@*) refuse "$1: \`$2\` holds a character that is not allowed" "no user and no password" ;;
    esac
}
require_path() {
    require_plain "$1" "$2"
    case $2 in /*) ;; *) refuse "$1: \`$2\` is no absolute path" ;; esac
}
require_port() {
    case $2 in '' | *[!0-9]* | 0* | ??????*) refuse "$1: \`$2\` is no port" "1 to 65535" ;; esac
    [ "$2" -le 65535 ] || refuse "$1: \`$2\` is no port" "1 to 65535"
}
matches() {
    # grep looks at each line on its own.
    case $2 in *"
"*) return 1 ;; esac
    printf '%s\n' "$2" | grep -Eqx "$1"
}

# $host and $port of an address such as 127.0.0.1:9145, [::]:9145 or 9145.
split_address() {
    require_plain "$1" "$2"
    port=${2##*:}
    host=${2%"$port"}
    host=${host%:}
    require_port "$1" "$port"
    [ -z "$host" ] || matches '[0-9.]+|\[[0-9A-Fa-f:]+\]|\*' "$host" ||
        refuse "$1: \`$2\` is neither a port nor an address with one" "9145, 127.0.0.1:9145 or [::1]:9145"
}
listen() {
    split_address "$1" "$2"
    if [ -n "$host" ]; then
        printf 'listen %s:%s;' "$host" "$port"
    else
        printf 'listen %s;' "$port"
        # Where the kernel has no IPv6 nginx could not open the socket.
        ! grep -q . /proc/net/if_inet6 2>/dev/null || printf ' listen [::]:%s;' "$port"
    fi
}

uses_names=
uses_tls=
# $url of a variable's value.
url() {
    url=${2%/}
    require_plain "$1" "$url"
    matches 'https?://([A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:]+\])(:[0-9]+)?' "$url" ||
        refuse "$1: \`$2\` is no address of a backend" "http://host:port or https://host:port, without a path"
    rest=${url#*://}
    case $rest in
        *]:*) require_port "$1" "${rest##*]:}" ;;
        *]) ;;
        *:*) require_port "$1" "${rest##*:}" ;;
    esac
    # nginx does not read /etc/hosts while it runs.
    case $rest in localhost | localhost:*) url=${url%%://*}://127.0.0.1${rest#localhost} rest=127.0.0.1 ;; esac
    case $url in https:*) uses_tls=yes ;; esac
    case $rest in
        \[*) ;;
        *[A-Za-z_]*) uses_names=yes ;;
    esac
}

# The name servers of the system as nginx writes them: IPv6 in brackets.
resolvers() {
    [ -r /etc/resolv.conf ] || return 0
    while read -r key address _; do
        [ "$key" = nameserver ] || continue
        case $address in
            *%*) say "the name server \`$address\` is not used: nginx knows no zones of addresses" ;;
            *:*) printf ' [%s]' "$address" ;;
            *) printf ' %s' "$address" ;;
        esac
    done < /etc/resolv.conf
}
resolver() {
    servers=${TENANTAUTH_RESOLVER-}
    for server in $servers; do
        require_plain TENANTAUTH_RESOLVER "$server"
    done
    [ -n "$servers" ] || servers=$(resolvers)
    if [ -n "$servers" ]; then
        printf 'resolver %s; resolver_timeout 5s;' "${servers# }"
    elif [ -n "$uses_names" ]; then
        refuse "no name server is known, and a backend is given by its name" \
            "set TENANTAUTH_RESOLVER to the addresses of name servers, or give the backend's address"
    fi
}
tls() {
    [ -n "$uses_tls" ] || return 0
    ca=${TENANTAUTH_CA_FILE:-/etc/ssl/certs/ca-certificates.crt}
    require_path TENANTAUTH_CA_FILE "$ca"
    [ -r "$ca" ] || refuse "TENANTAUTH_CA_FILE: \`$ca\` cannot be read" \
        "the certificates that sign those of backends at https"
    printf 'proxy_ssl_server_name on; proxy_ssl_verify on; proxy_ssl_verify_depth 4; proxy_ssl_trusted_certificate %s;' "$ca"
}
real_ip() {
    balancers=${TENANTAUTH_LOAD_BALANCERS:-}
    for balancer in $balancers; do
        matches '[0-9.]+(/[0-9]+)?|[0-9A-Fa-f:.]+(/[0-9]+)?' "$balancer" ||
            refuse "TENANTAUTH_LOAD_BALANCERS: \`$balancer\` is neither an address nor a CIDR" "separate them by blanks"
        printf 'set_real_ip_from %s; ' "$balancer"
    done
    [ -z "$balancers" ] || printf 'real_ip_header X-Forwarded-For; real_ip_recursive on;'
}

# As many workers as the container may use processors: nginx's own `auto` counts those of the whole machine.
workers() {
    workers=$(nproc)
    if read -r quota period 2>/dev/null < /sys/fs/cgroup/cpu.max && [ "$quota" != max ]; then
        allowed=$(((quota + period - 1) / period))
        [ "$allowed" -ge "$workers" ] || workers=$allowed
    fi
    echo "$workers"
}

# $audit, $audit_mib, $piped and $audit_buffer. A pipe takes short records alone; a file takes what the policy allows.
audit() {
    audit=${TENANTAUTH_AUDIT_LOG:-/dev/stdout}
    audit_mib=${TENANTAUTH_AUDIT_FILE_MIB:-64}
    require_path TENANTAUTH_AUDIT_LOG "$audit"
    matches '[1-9][0-9]{0,4}' "$audit_mib" ||
        refuse "TENANTAUTH_AUDIT_FILE_MIB: \`$audit_mib\` is no size of a file" "1 to 99999"
    case $audit in
        /dev/*) piped= audit_buffer=4k ;;
        *)
            [ -d "${audit%/*}" ] && [ -w "${audit%/*}" ] ||
                refuse "TENANTAUTH_AUDIT_LOG: \`${audit%/*}\` cannot be written" \
                    "mount a volume there that user $(id -u) may write"
            piped="# " audit_buffer=64k
            ;;
    esac
}

# Template to file, with the values given as NAME=value.
fill() {
    from=$1 to=$2
    shift 2
    set -- "RUN=$run" "PREFIX=$prefix" "$@"
    script=
    for pair in "$@"; do
        script="$script
s|@${pair%%=*}@|${pair#*=}|g"
    done
    sed "$script" "$from" > "$to"
}

render() {
    mode=${TENANTAUTH_MODE:-gateway}
    require_path TENANTAUTH_PREFIX "$prefix"
    require_path TENANTAUTH_RUN_DIR "$run"
    level=${TENANTAUTH_LOG_LEVEL:-notice}
    matches 'debug|info|notice|warn|error|crit' "$level" ||
        refuse "TENANTAUTH_LOG_LEVEL: \`$level\` is no level of nginx" "info, notice, warn, error or crit"
    count=${TENANTAUTH_WORKERS:-$(workers)}
    matches '[1-9][0-9]{0,2}' "$count" || refuse "TENANTAUTH_WORKERS: \`$count\` is no number of workers" "1 to 999"
    split_address TENANTAUTH_ADMIN_LISTEN "${TENANTAUTH_ADMIN_LISTEN:-127.0.0.1:9145}"
    admin=${host:+$host:}$port
    rm -rf "$run/servers" && mkdir -p "$run/servers" ||
        refuse "\`$run\` cannot be written" "mount a tmpfs there that user $(id -u) may write"
    case $mode in
        gateway)
            require_path TENANTAUTH_POLICY "$policy"
            kept=
            if [ -n "$state" ]; then
                require_path TENANTAUTH_STATE_DIR "$state"
                kept=", state_dir = \"$state\""
            fi
            served=
            for backend in mimir=8081 loki=8082 tempo=8083 pyroscope=8084; do
                listens=${backend#*=} backend=${backend%=*}
                name=$(printf %s "$backend" | tr a-z A-Z)
                eval "value=\${${name}_URL:-} listens=\${TENANTAUTH_LISTEN_$name:-$listens}"
                [ -n "$value" ] || continue
                url "${name}_URL" "$value"
                listens=$(listen "TENANTAUTH_LISTEN_$name" "$listens")
                fill "$templates/backend.conf" "$run/servers/$backend.conf" "BACKEND=$backend" "URL=$url" "LISTEN=$listens"
                served=yes
            done
            if [ -n "${TEMPO_OTLP_URL:-}" ]; then
                [ -n "${TEMPO_URL:-}" ] || refuse "TEMPO_OTLP_URL needs TEMPO_URL" \
                    "one server takes Tempo's questions and its traces"
                url TEMPO_OTLP_URL "$TEMPO_OTLP_URL"
                mkdir "$run/servers/tempo.d"
                fill "$templates/otlp.conf" "$run/servers/tempo.d/otlp.conf" "URL=$url"
            fi
            [ -n "$served" ] || refuse "no backend is given" "set MIMIR_URL, LOKI_URL, TEMPO_URL or PYROSCOPE_URL: http://host:port"
            resolver=$(resolver)
            tls=$(tls)
            audit
            fill "$templates/admin.conf" "$run/admin.conf" "ADMIN_LISTEN=$admin"
            fill "$templates/gateway.conf" "$run/nginx.conf" "WORKERS=$count" "LOG_LEVEL=$level" "POLICY=$policy" \
                "AUDIT_LOG=$audit" "AUDIT_BUFFER=$audit_buffer" "PIPED=$piped" \
                "STATE_DIR=$kept" "TLS=$tls" "RESOLVER=$resolver"
            ;;
        grafana-gateway)
            keys=${TENANTAUTH_KEYS_FILE:-/etc/tenantauth/client-ip.keys}
            require_path TENANTAUTH_KEYS_FILE "$keys"
            [ -n "${GRAFANA_URL:-}" ] || refuse "Grafana is not given" "set GRAFANA_URL: http://host:port"
            url GRAFANA_URL "$GRAFANA_URL"
            listens=$(listen TENANTAUTH_LISTEN_GRAFANA "${TENANTAUTH_LISTEN_GRAFANA:-8080}")
            resolver=$(resolver)
            tls=$(tls)
            real_ip=$(real_ip)
            # It is looked for again and again; until it is there, nginx answers 503.
            [ -r "$keys" ] || say "\`$keys\` cannot be read: every request is answered 503"
            fill "$templates/grafana-gateway.conf" "$run/nginx.conf" "WORKERS=$count" "LOG_LEVEL=$level" "URL=$url" \
                "LISTEN=$listens" "KEYS_FILE=$keys" "TLS=$tls" "RESOLVER=$resolver" "REAL_IP=$real_ip" "ADMIN_LISTEN=$admin"
            ;;
        *) refuse "TENANTAUTH_MODE: unknown mode \`$mode\`" "gateway or grafana-gateway" ;;
    esac
}

# Prints what is wrong with the policy. Refused is a start that would answer 503 to everybody.
look_at_policy() {
    if [ -n "$state" ]; then set -- --state-dir "$state"; else set --; fi
    "$prefix/bin/tenantauth" check --start "$@" "$policy" >&2 ||
        refuse "not started: the policy is not usable, and no last good version of it lies in the state directory" \
            "repair the lines above"
}

case ${1-} in
    '') ;;
    render)
        render
        echo "$run/nginx.conf"
        exit
        ;;
    *) exec "$@" ;;
esac

if [ -e "$own" ]; then
    # It may be that of a Grafana Gateway, which has no policy.
    if [ -e "$policy/policy.yaml" ] || [ -f "$policy" ]; then look_at_policy; fi
    configuration=$own
else
    render
    [ "$mode" != gateway ] || look_at_policy
    configuration=$run/nginx.conf
    # The shell becomes nginx: its process id is nginx's.
    case ${audit:-/dev/} in /dev/*) ;; *) "$prefix/bin/tenantauth-rotate" "$audit" "$audit_mib" $$ & ;; esac
fi
exec openresty -p "$run" -e stderr -c "$configuration" -g 'daemon off;'
