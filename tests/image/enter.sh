#!/bin/sh
# enter.sh UID:GID COMMAND...: runs a command of the image whose root lies at $ROOT as an engine would: as that user, with
# a root file system that cannot be written, processes of its own, and the directories of $ROOM mounted over it. The
# network is that of the machine.
set -eu
if [ "$1" != inside ]; then
    exec unshare --mount --pid --fork --kill-child --propagation private "$0" inside "$@"
fi
user=$2
shift 2
view=$ROOM/root
mkdir -p "$view"
mount --bind "$ROOT" "$view"
mount -o remount,bind,ro "$view"
mount -t proc proc "$view/proc"
mount -t tmpfs -o mode=755 tmpfs "$view/dev"
for device in null zero urandom; do
    : > "$view/dev/$device"
    mount --bind "/dev/$device" "$view/dev/$device"
done
ln -s /proc/self/fd "$view/dev/fd"
ln -s /proc/self/fd/1 "$view/dev/stdout"
ln -s /proc/self/fd/2 "$view/dev/stderr"
mount --bind "$ROOM/etc" "$view/etc/tenantauth"
mount -o remount,bind,ro "$view/etc/tenantauth"
mount --bind "$ROOM/run" "$view/run/tenantauth"
mount --bind "$ROOM/state" "$view/var/lib/tenantauth"
if [ -e "$ROOM/own.conf" ]; then
    # An engine makes the place of a mount; here the directory that holds it is covered.
    mount -t tmpfs tmpfs "$view/etc/nginx"
    cp "$ROOM/own.conf" "$view/etc/nginx/nginx.conf"
fi
# nginx opens /dev/stdout by its name: an engine hands its pipes over to the container's user, too.
chown "${user%%:*}" /proc/self/fd/1 /proc/self/fd/2 2>/dev/null || true
unset ROOT ROOM
# This shell stays, as process 1: all ends with it. A process that changes its user would survive who started it.
status=0
chroot --userspec="$user" --groups= "$view" "$@" || status=$?
exit $status
