#!/bin/sh
# Installs the system packages that a make target needs and that are missing: says which, and asks on a terminal.
# Arguments: any of `nginx`, `lua`, `prometheus`, `python`, `node`, `openssl`, `wrk`, `haproxy`, `cjson`, `buildah`,
# `mmdebstrap`, `dpkg-dev`, `cxx`, `valgrind`, `go`. An OpenResty given as NGINX= needs neither nginx nor lua nor cjson.
set -eu

missing=
for need in "$@"; do
    case $need in
        nginx) [ -n "${NGINX:-}" ] || command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing="$missing nginx" ;;
        lua) [ -n "${NGINX:-}" ] || [ -e /usr/lib/nginx/modules/ngx_http_lua_module.so ] || missing="$missing libnginx-mod-http-lua" ;;
        node)
            command -v node >/dev/null || missing="$missing nodejs"
            command -v npm >/dev/null || missing="$missing npm"
            ;;
        # lua-resty-jwt's parser of JSON, for LuaJIT.
        cjson) [ -n "${NGINX:-}" ] || find /usr/lib -path '*/lua/5.1/cjson.so' 2>/dev/null | grep -q . || missing="$missing lua-cjson" ;;
        haproxy) command -v haproxy >/dev/null || [ -x /usr/sbin/haproxy ] || missing="$missing haproxy" ;;
        prometheus | wrk | buildah | mmdebstrap | valgrind | openssl) command -v "$need" >/dev/null || missing="$missing $need" ;;
        dpkg-dev) command -v dpkg-shlibdeps >/dev/null || missing="$missing dpkg-dev" ;;
        go) command -v "${GO:-go}" >/dev/null || missing="$missing golang-go" ;;
        cxx) command -v c++ >/dev/null || missing="$missing g++" ;;
        python) python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv" ;;
        *) echo "unknown need \`$need\`" >&2; exit 1 ;;
    esac
done
command -v cc >/dev/null || missing="$missing gcc libc6-dev"
command -v cargo >/dev/null || {
    echo "a Rust toolchain is needed (cargo 1.88 or later): see https://rustup.rs" >&2
    exit 1
}
[ -n "$missing" ] || exit 0

echo "these packages are needed and will be installed:$missing"
if ! command -v apt-get >/dev/null; then
    echo "this system has no apt-get: install them by hand, or give an OpenResty as NGINX=/path/to/openresty" >&2
    exit 1
fi
if [ -t 0 ] && [ -t 1 ]; then
    printf 'install them now? [Y/n] '
    read -r answer
    case $answer in '' | [Yy]*) ;; *) echo "not installed" >&2; exit 1 ;; esac
fi
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
# The packages start services of their own, which are not wanted here: policy-rc.d tells them not to.
guard=/usr/sbin/policy-rc.d
if [ ! -e $guard ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee $guard >/dev/null
    $as_root chmod 0755 $guard
    trap '$as_root rm -f $guard' EXIT
fi
$as_root apt-get update -q
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -q -y --no-install-recommends $missing
