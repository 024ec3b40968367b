#!/bin/bash
# The packages: reproducible, complete, and the .deb installed, upgraded under a running nginx and removed, in a root of
# its own. As root; `make test` has built the module.
set -eu
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
work=$(mktemp -d)
nginx=
finish() {
    [ -z "$nginx" ] || kill -TERM "$nginx" 2>/dev/null || true
    sleep 0.2
    ! mountpoint -q "$work/root/proc" || umount "$work/root/proc"
    rm -rf --one-file-system "$work"
}
trap finish EXIT
fail() { echo "packages: $*" >&2; exit 1; }
pack() { # KIND DIRECTORY [VERSION]
    DIST=$work/$2 VERSION=${3:-$version} TARGET=${TARGET:-target} MAKE=make ./packaging/package.sh "$1" > /dev/null
}

for kind in deb tarball; do
    pack $kind one
    sleep 1.1
    pack $kind two
done
(cd "$work/one" && sha256sum -- * > ../SUMS && ls)
(cd "$work/two" && sha256sum --quiet -c ../SUMS) || fail "the same commit gave other bytes"

# The tarball installs as `make install` does, with names of its own prefix in the examples.
tar -C "$work" -xzf "$work/one/tenantauth-$version-linux-$(uname -m).tar.gz"
for prefix in /usr/local /opt/ta; do
    DESTDIR=$work/tree PREFIX=$prefix "$work/tenantauth-$version-linux-$(uname -m)/install.sh" > /dev/null
    make -s install DESTDIR="$work/made" PREFIX=$prefix
    diff -r "$work/tree$prefix" "$work/made$prefix" || fail "the tarball installs something else under $prefix"
    ! grep -rl /usr/local/ "$work/made/opt/ta/share" 2>/dev/null || fail "an example names another prefix"
done
[ -f "$work/tenantauth-$version-linux-$(uname -m)/LICENSE" ] || fail "the tarball has no license"

# What is to be read leads somewhere there, too.
dead_links() { # DIRECTORY
    (cd "$1" && for page in README.md README.ja.md SECURITY.md docs/*.md; do
        grep -oE '\]\([^)#]+' "$page" | sed 's/^..//' | grep -v '^https\?:' | while read -r target; do
            [ -e "$(dirname "$page")/$target" ] || echo "$page: $target"
        done
    done)
}
deb=$work/one/tenantauth_${version}_$(dpkg --print-architecture).deb
dpkg-deb -x "$deb" "$work/unpacked"
for directory in "$work/unpacked/usr/share/doc/tenantauth" "$work/tenantauth-$version-linux-$(uname -m)"; do
    [ -z "$(dead_links "$directory")" ] || fail "$directory: $(dead_links "$directory")"
    [ -f "$directory/deploy/alerts/tenantauth.rules.yml" ] || fail "$directory has no alerts"
done

# What dpkg says of the .deb.
field() { dpkg-deb -f "$deb" "$1"; }
case $(field Depends) in *libc6*) ;; *) fail "it depends on $(field Depends)" ;; esac
[ "$(field Recommends)" = "libnginx-mod-http-lua | openresty" ] || fail "it recommends $(field Recommends)"
dpkg-deb -c "$deb" | awk '$2 != "root/root" { bad = 1; print } END { exit bad }' || fail "a file is not root's"
rule=$work/unpacked/etc/logrotate.d/tenantauth
cmp packaging/logrotate "$rule" || fail "the audit log is rotated by nobody"
[ "$(stat -c %a "$rule")" = 644 ] || fail "logrotate refuses a rule of mode $(stat -c %a "$rule")"
dpkg-deb --ctrl-tarfile "$deb" | tar -xO ./conffiles | grep -qx /etc/logrotate.d/tenantauth || fail "an upgrade overwrites the rule"
if command -v logrotate > /dev/null; then
    # It complains on stderr and exits with 0 where it skips a rule.
    logrotate -d "$rule" > "$work/said" 2>&1 && ! grep -qi error "$work/said" || fail "logrotate: $(cat "$work/said")"
fi
if command -v lintian > /dev/null; then
    lintian --allow-root --fail-on error,warning "$deb" || fail "lintian objects"
fi

# Before a reload.
mkdir -p "$work/policy/owners.d"
sed 's|@PREFIX@/bin/tenantauth|'"$work/made/usr/local/bin/tenantauth|g" packaging/reload-check > "$work/reload-check"
chmod +x "$work/reload-check"
reload_check() { TENANTAUTH_POLICY=$1 "$work/reload-check" > "$work/said" 2>&1; }
reload_check "$work/policy" && fail "a directory without policy.yaml is no policy" || grep -q 'not reloaded' "$work/said"
reload_check "$work/nowhere" || fail "without a policy there is nothing to check"
reload_check "" || fail "an empty name switches the check off"
policy() {
    cat << EOF
version: 1
issuers: [{ issuer: 'https://login.example.com', audiences: [grafana], jwks: { keys: [$jwk] } }]
authorizations: { group1: [tenant1] }
$1
EOF
}
jwk='{ kty: RSA, kid: k, e: AQAB, n: ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ }'
policy 'owners: { team-a: { tenants: [team-a] } }' > "$work/policy/policy.yaml"
echo '{}' > "$work/policy/owners.d/team-a.yaml"
reload_check "$work/policy" || fail "a good policy is refused: $(cat "$work/said")"
echo 'grants: [{ groups: [a], tenants: [tenant1] }]' > "$work/policy/owners.d/team-a.yaml"
reload_check "$work/policy" || fail "an owner's document stops a reload: $(cat "$work/said")"
grep -q 'owners.d/team-a.yaml:1:' "$work/said" || fail "an owner's broken document is not told"
policy 'grants: [{ groups: [a], tenants: [t], scopes: [logs:raed] }]' > "$work/policy/policy.yaml"
status=0
reload_check "$work/policy" || status=$?
[ $status = 3 ] && grep -q 'policy.yaml:4:48: grants' "$work/said" && grep -q 'nginx is not reloaded' "$work/said" ||
    fail "a broken policy: $status, $(cat "$work/said")"

# And the configuration, as an nginx prints it.
configuration() { # BODY
    cat > "$work/nginx.conf" << EOF
daemon off; pid $work/nginx.pid; error_log $work/error.log;
include /etc/nginx/modules-enabled/*.conf;
events {}
http {
    lua_package_cpath "$work/made/usr/local/lib/tenantauth/?.so;;";
    access_log off;
    server { listen unix:$work/nginx.sock; $1 location / { proxy_pass http://127.0.0.1:3100; } }
}
EOF
}
printf '#!/bin/sh\nexec nginx -c %s "$@"\n' "$work/nginx.conf" > "$work/nginx"
chmod +x "$work/nginx"
reload_check_of() { TENANTAUTH_POLICY=$1 "$work/reload-check" "$work/nginx" > "$work/said" 2>&1; }
policy '' > "$work/policy/policy.yaml"
echo '{}' > "$work/policy/owners.d/team-a.yaml"
configuration 'rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }'
reload_check_of "$work/policy" || fail "a good configuration is refused: $(cat "$work/said")"
configuration 'underscores_in_headers on; rewrite_by_lua_block { require("tenantauth").enforce { backend = "loki" } }'
reload_check_of "$work/policy" || fail "a fault that denies nobody stops a reload: $(cat "$work/said")"
grep -q 'underscores_in_headers' "$work/said" || fail "a fault is not reported: $(cat "$work/said")"
configuration 'rewrite_by_lua_block { require("tenantauth").enforce { backend = "lok" } }'
status=0
reload_check_of "$work/policy" || status=$?
[ $status = 2 ] && grep -q 'nginx.conf:7: tenantauth.enforce: option `backend`' "$work/said" && grep -q 'nginx is not reloaded' "$work/said" ||
    fail "a configuration that denies everybody: $status, $(cat "$work/said")"
configuration 'rewrite_by_lua_block {'
reload_check_of "$work/policy" || fail "what nginx refuses is for nginx to say: $(cat "$work/said")"

# A release is made of what is committed, and of what the changelog tells of.
git clone --quiet --no-hardlinks . "$work/clone"
make -s -C "$work/clone" release VERSION=9.9.9 > "$work/said" 2>&1 && fail "a version without a changelog is released"
grep -q 'CHANGELOG.md has no section for 9.9.9' "$work/said" || fail "$(cat "$work/said")"
touch "$work/clone/new"
make -s -C "$work/clone" release > "$work/said" 2>&1 && fail "a tree that is not clean is released"
grep -q 'the tree is not clean' "$work/said" || fail "$(cat "$work/said")"

# The life of the .deb, in a Debian with nginx.
(work=$PWD/target/image && . ./tests/image/roots.sh && root openresty)
root=$work/root
mkdir "$root"
tar -C "$root" --exclude=./dev/* -xf target/image/openresty.tar
mknod -m 666 "$root/dev/null" c 1 3
mknod -m 666 "$root/dev/urandom" c 1 9
mount -t proc proc "$root/proc"
listed() {
    (cd "$root" && find . -xdev \( -path ./var/lib/dpkg -o -path ./var/lib/nginx -o -path ./var/log -o -path ./run -o -path ./var/cache -o -path ./proc \) \
        -prune -o -print | LC_ALL=C sort)
}
listed > "$work/before"
in_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
cp "$deb" "$root/tenantauth.deb"
in_root dpkg -i /tenantauth.deb > "$work/dpkg.log" 2>&1 || fail "it does not install: $(cat "$work/dpkg.log")"
[ -z "$(in_root dpkg --verify tenantauth)" ] || fail "its checksums are wrong"
in_root tenantauth --version | grep -qx "tenantauth $version" || fail "the command does not run"
in_root tenantauth schema | cmp - "$root/usr/share/tenantauth/policy.schema.json"
for unit in nginx openresty; do
    dropin=$root/usr/lib/systemd/system/$unit.service.d/tenantauth.conf
    # Lines that were there before are dropped; then the check, the syntax, the signal: each runs if the one before did not fail.
    [ "$(sed -n 's/^ExecReload=//p' "$dropin" | sed 's/.*\(reload-check\) .*nginx$/\1/; s/.*\(-t -q\|-s HUP \$MAINPID\)$/\1/' | tr '\n' ,)" = ",reload-check,-t -q,-s HUP \$MAINPID," ] ||
        fail "$unit's drop-in reloads otherwise"
done
[ -x "$root$(sed -n 's/^ExecReload=\(.*reload-check\) .*$/\1/p' "$dropin")" ] || fail "the drop-in names no program"

# Hands the log to nginx anew, as logrotate does.
rotate() {
    mv "$root/var/log/nginx/audit.jsonl" "$root/var/log/nginx/audit.jsonl.1"
    sed -n '/postrotate/,/endscript/{//d;p}' "$root/etc/logrotate.d/tenantauth" > "$root/rotate"
    in_root sh -e /rotate || fail "the rotation fails"
    rm "$root/rotate"
}
port=$((20000 + $$ % 10000))
policy '' > "$root/etc/tenantauth/policy.yaml"
# The example as it was installed, on a port of ours.
sed "s/listen 8080/listen 127.0.0.1:$port/; s/^worker_processes .*/worker_processes 1;/" \
    "$root/usr/share/tenantauth/examples/minimal.conf" > "$root/etc/nginx/nginx.conf"
# Not by the function: its shell would stand between.
chroot "$root" env -i PATH=/usr/sbin:/usr/bin nginx -g 'daemon off;' > "$work/nginx.log" 2>&1 &
nginx=$!
ask() { # prints the reason of a denial
    exec 3<> "/dev/tcp/127.0.0.1/$port" || return 1
    printf 'GET /loki/api/v1/labels HTTP/1.0\r\nX-Scope-OrgID: tenant1\r\n\r\n' >&3
    tr -d '\r' <&3 | sed -n 's/^X-Tenantauth-Reason: //p'
}
answers() {
    for _ in $(seq 100); do
        [ "$(ask 2>/dev/null)" != token_missing ] || return 0
        sleep 0.1
    done
    fail "$1: $(cat "$work/nginx.log" "$root/var/log/nginx/error.log")"
}
workers() { cat "/proc/$nginx/task/$nginx/children"; }
# The inodes of the module as the workers have it mapped.
mapped() {
    for pid in $(workers); do awk '/tenantauth\.so/ { print $5 }' "/proc/$pid/maps" 2> /dev/null; done | sort -u
}
installed() { stat -c %i "$root/usr/lib/tenantauth/tenantauth.so"; }
answers "nginx with the package does not answer"
# Records go on in a new file after the rotation, and none is lost.
rotate
for _ in $(seq 50); do
    [ ! -f "$root/var/log/nginx/audit.jsonl" ] || break
    sleep 0.1
done
[ -f "$root/var/log/nginx/audit.jsonl" ] || fail "nginx did not open the audit log anew: $(cat "$work/nginx.log")"
ask > /dev/null
for _ in $(seq 50); do
    ! grep -q '"decision":"deny"' "$root/var/log/nginx/audit.jsonl" || break
    sleep 0.1
done
grep -q '"decision":"deny"' "$root/var/log/nginx/audit.jsonl" || fail "no record after the rotation"
grep -q '"decision":"deny"' "$root/var/log/nginx/audit.jsonl.1" || fail "the rotation lost a record"
first=$(installed)
[ "$(mapped)" = "$first" ] || fail "the worker has another module: $(mapped), not $first"
pack deb next "$version+1"
cp "$work"/next/*.deb "$root/tenantauth.deb"
before=$(workers)
in_root dpkg -i /tenantauth.deb > "$work/dpkg.log" 2>&1 || fail "it does not upgrade: $(cat "$work/dpkg.log")"
[ "$(installed)" != "$first" ] || fail "the module was overwritten in place"
answers "nginx does not answer after the upgrade"
[ "$(workers)" = "$before" ] && [ "$(mapped)" = "$first" ] || fail "the workers did not keep their module"
kill -HUP "$nginx"
for _ in $(seq 100); do
    [ "$(mapped)" != "$(installed)" ] || break
    sleep 0.1
done
[ "$(mapped)" = "$(installed)" ] || fail "a reload did not bring the new module"
answers "nginx does not answer after the reload"

echo '# mine' >> "$root/etc/default/tenantauth"
in_root dpkg -r tenantauth > /dev/null
[ ! -e "$root/usr/lib/tenantauth" ] && [ ! -e "$root/usr/bin/tenantauth" ] || fail "something is left of it"
grep -q mine "$root/etc/default/tenantauth" || fail "removing it took away what was changed"
answers "nginx does not answer after the removal"
kill -TERM "$nginx"
wait "$nginx" || true
nginx=
rm "$root/etc/tenantauth/policy.yaml" "$root/etc/nginx/nginx.conf" "$root/tenantauth.deb"
in_root dpkg -P tenantauth > /dev/null
rmdir "$root/etc/tenantauth" 2>/dev/null || true
listed | diff "$work/before" - || fail "purging it left something"
echo "packages: reproducible; installed, upgraded under a running nginx, removed and purged"
