#!/bin/sh
# Installs what lies beside it: PREFIX=/usr/local (default), DESTDIR is honoured. Each file is replaced by rename: a
# running nginx keeps the module that it has mapped until it is reloaded.
set -eu
cd "$(dirname "$0")"
prefix=${PREFIX:-/usr/local}
find bin lib share -type f | while read -r file; do
    to=${DESTDIR:-}$prefix/$file
    new=$(dirname "$to")/.$(basename "$to").new
    mkdir -p "$(dirname "$to")"
    case $file in
        share/*) sed "s|/usr/local/|$prefix/|g" "$file" > "$new" ;;
        *) cp "$file" "$new" ;;
    esac
    case $file in bin/*) chmod 0755 "$new" ;; *) chmod 0644 "$new" ;; esac
    mv -f "$new" "$to"
done
echo "installed to ${DESTDIR:-}$prefix"
