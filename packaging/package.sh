#!/bin/sh
# package.sh deb|tarball: packs what `make build` has built into $DIST, the same bytes for the same commit and build.
# From the Makefile: VERSION, DIST, TARGET and MAKE.
set -eu
cd "$(dirname "$0")/.."
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH LC_ALL=C
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$DIST"
umask 022

# What is to be read, and what is loaded elsewhere (alerts, dashboard, queries, log shippers, chart), with its links whole.
# Of the compose stack the page alone: it builds the image from the repository.
documents() { # DIRECTORY NGINX, which is where `nginx` leads from there
    for file in README.md README.ja.md CHANGELOG.md SECURITY.md LICENSE tests/README.md benches/README.md benches/scale/scale.svg \
        deploy/compose/README.md; do
        install -D -m 0644 "$file" "$1/$file"
    done
    cp -R docs "$1/docs"
    for folder in alerts alloy bigquery duckdb fluent-bit grafana helm queries; do
        cp -R "deploy/$folder" "$1/deploy/$folder"
    done
    ln -s "$2" "$1/nginx"
}

deb() {
    root=$work/root
    doc=$root/usr/share/doc/tenantauth
    $MAKE -s install DESTDIR="$root" PREFIX=/usr TARGET="$TARGET"
    mkdir -p "$root/DEBIAN" "$root/etc/tenantauth" "$root/etc/default" "$doc" "$root/usr/share/lintian/overrides"
    sed 's|@PREFIX@|/usr|g' packaging/reload-check > "$root/usr/lib/tenantauth/reload-check"
    chmod 0755 "$root/usr/lib/tenantauth/reload-check"
    chmod 0644 "$root/usr/lib/tenantauth/tenantauth.so"
    for unit in nginx=/usr/sbin/nginx openresty=/usr/local/openresty/nginx/sbin/nginx; do
        dropin=$root/usr/lib/systemd/system/${unit%%=*}.service.d
        mkdir -p "$dropin"
        sed "s|@PREFIX@|/usr|; s|@NGINX@|${unit#*=}|" packaging/nginx.conf > "$dropin/tenantauth.conf"
    done
    cp packaging/default "$root/etc/default/tenantauth"
    install -D -m 0644 packaging/logrotate "$root/etc/logrotate.d/tenantauth"
    cp packaging/lintian-overrides "$root/usr/share/lintian/overrides/tenantauth"
    cp packaging/copyright "$doc/copyright"
    documents "$doc" ../../tenantauth
    cp CHANGELOG.md "$doc/changelog"
    maintainer=${MAINTAINER:-The authors of tenantauth <tenantauth@example.com>}
    gzip -9n "$doc/changelog"
    printf 'tenantauth (%s) stable; urgency=medium\n\n  * See changelog.gz.\n\n -- %s  %s\n' \
        "$VERSION" "$maintainer" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n > "$doc/changelog.Debian.gz"

    # What the libraries that it needs are called here, and from which version on.
    mkdir -p "$work/debian"
    printf 'Source: tenantauth\n\nPackage: tenantauth\nArchitecture: any\n' > "$work/debian/control"
    depends=$(cd "$work" && dpkg-shlibdeps -O -e root/usr/bin/tenantauth -e root/usr/lib/tenantauth/tenantauth.so 2>/dev/null |
        sed -n 's/^shlibs:Depends=//p')
    [ -n "$depends" ] || { echo "dpkg-shlibdeps found no dependencies" >&2; exit 1; }
    architecture=$(dpkg --print-architecture)
    cat > "$root/DEBIAN/control" << EOF
Package: tenantauth
Version: $VERSION
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f 1)
Depends: $depends
Recommends: libnginx-mod-http-lua | openresty
Section: admin
Priority: optional
Description: authorization for Grafana OSS over Mimir, Loki and Tempo
 Grafana OSS lets every signed-in user read every tenant. tenantauth decides
 inside the nginx or OpenResty in front of the backends: by a verified token,
 the tenants and scopes of its groups, and the networks that people come from.
 .
 This package holds the Lua module, the command line and snippets for nginx.
EOF
    printf '%s\n' /etc/default/tenantauth /etc/logrotate.d/tenantauth > "$root/DEBIAN/conffiles"
    for script in postinst postrm; do
        # A unit's drop-in is read when systemd is told.
        printf '#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then\n    systemctl daemon-reload || true\nfi\n' > "$root/DEBIAN/$script"
        chmod 0755 "$root/DEBIAN/$script"
    done
    (cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
    find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Zxz --build "$root" "$DIST/tenantauth_${VERSION}_$architecture.deb"
}

tarball() {
    name=tenantauth-$VERSION-linux-$(uname -m)
    root=$work/$name
    $MAKE -s install DESTDIR="$root" PREFIX= TARGET="$TARGET" SHOWN_PREFIX=/usr/local
    cp packaging/install.sh "$root"
    documents "$root" share/tenantauth
    mkdir -p "$root/systemd"
    cp packaging/reload-check packaging/nginx.conf "$root/systemd"
    install -D -m 0644 packaging/logrotate "$root/logrotate/tenantauth"
    tar -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=go+rX,go-w -c "$name" |
        gzip -9n > "$DIST/$name.tar.gz"
    echo "$DIST/$name.tar.gz"
}

case $1 in
    deb) deb ;;
    tarball) tarball ;;
    *) echo "unknown package \`$1\`" >&2; exit 1 ;;
esac
