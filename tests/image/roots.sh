# To be sourced, as root and with $work: roots of this machine's Debian release, made from its packages. They come from the
# mirror that apt uses here, and are kept in $work for the next time.

# root NAME: $work/NAME.tar, `rust` with a C compiler and a place for this machine's Rust, or `openresty` with nginx and its
# Lua module.
root() {
    [ ! -s "$work/$1.tar" ] || return 0
    mkdir -p "$work"
    case $1 in
        rust)
            packages=gcc,libc6-dev,make,ca-certificates
            hook='mkdir -p "$1/usr/local/rust" && for tool in cargo rustc; do ln -s "../rust/bin/$tool" "$1/usr/local/bin/$tool"; done'
            ;;
        openresty)
            packages=nginx,libnginx-mod-http-lua,ca-certificates
            # Debian's lines for modules are relative to nginx's prefix, which the image gives.
            hook='ln -s ../sbin/nginx "$1/usr/bin/openresty" && rm "$1/etc/nginx/nginx.conf" &&
                sed -i "s|load_module modules/|load_module /usr/lib/nginx/modules/|" "$1"/usr/share/nginx/modules-available/*.conf'
            ;;
    esac
    for sources in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
        [ ! -s "$sources" ] || break
    done
    echo "making a root with $packages"
    mmdebstrap --quiet --variant=minbase --include="$packages" --customize-hook="$hook" \
        "$(. /etc/os-release && echo "${VERSION_CODENAME:?a Debian is needed}")" "$work/$1.new.tar" "$sources"
    mv "$work/$1.new.tar" "$work/$1.tar"
}
