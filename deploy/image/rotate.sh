#!/bin/sh
# Keeps the audit log of a volume short: moves a file that has grown to its limit aside, has nginx open a new one, and
# keeps the last eight. Ends with nginx. Arguments: the file, its limit in MiB, nginx's process id, how often to look in
# seconds.
set -eu
log=$1 limit=$(($2 * 1024 * 1024)) nginx=$3 pause=${4:-10}

while sleep "$pause" && kill -0 "$nginx" 2>/dev/null; do
    size=$(stat -c %s "$log" 2>/dev/null) || continue
    [ "$size" -ge "$limit" ] || continue
    number=7
    while [ "$number" -ge 1 ]; do
        [ ! -e "$log.$number" ] || mv -f "$log.$number" "$log.$((number + 1))"
        number=$((number - 1))
    done
    mv -f "$log" "$log.1"
    kill -USR1 "$nginx"
done
