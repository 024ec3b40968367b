#!/bin/sh
# `make install` puts every promised file where the contract says, replaces by rename, and leaves nothing else.
set -eu
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

make -s install DESTDIR="$root" PREFIX=/opt/ta
examples=$(cd nginx && ls -d examples/*)
for file in lib/tenantauth/tenantauth.so bin/tenantauth share/tenantauth/http.conf share/tenantauth/auth.lua \
    share/tenantauth/policy.schema.json \
    share/tenantauth/owner.schema.json \
    $(printf 'share/tenantauth/%s ' $examples); do
    [ -f "$root/opt/ta/$file" ] || { echo "not installed: $file" >&2; exit 1; }
done
"$root/opt/ta/bin/tenantauth" --version | grep -q '^tenantauth 0\.'
"$root/opt/ta/bin/tenantauth" schema | cmp - "$root/opt/ta/share/tenantauth/policy.schema.json"
"$root/opt/ta/bin/tenantauth" schema --owner | cmp - "$root/opt/ta/share/tenantauth/owner.schema.json"

# A file in use is replaced, not overwritten: the old inode lives on under another name.
ln "$root/opt/ta/lib/tenantauth/tenantauth.so" "$root/old.so"
before=$(stat -c %i "$root/old.so")
make -s install DESTDIR="$root" PREFIX=/opt/ta
after=$(stat -c %i "$root/opt/ta/lib/tenantauth/tenantauth.so")
[ "$before" != "$after" ] || { echo "the module was overwritten in place" >&2; exit 1; }
if find "$root" -name '.*new*' | grep -q .; then
    echo "install left a temporary file" >&2
    exit 1
fi

# One file that needs nothing but nginx's Lua: no other library than those of glibc, and one exported symbol.
module=$root/opt/ta/lib/tenantauth/tenantauth.so
foreign=$(objdump -p "$module" | awk '$1 == "NEEDED" {print $2}' | grep -vE '^(libc|libm|libgcc_s|ld-linux[a-z0-9-]*)\.so' || true)
[ -z "$foreign" ] || { echo "the module needs $foreign" >&2; exit 1; }
exported=$(nm -D --defined-only "$module" | awk '{print $3}' | sort | tr '\n' ' ')
[ "$exported" = "luaopen_tenantauth " ] || { echo "the module exports: $exported" >&2; exit 1; }
echo "install: all promised files are there"
