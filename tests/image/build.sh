#!/bin/sh
# Builds the Dockerfile as it is over stand-ins for its base images, which come from Debian's packages where no image can
# be pulled: a root with a C compiler and this machine's Rust, and one with nginx, its Lua module and a command `openresty`.
# Then runs tests/image in the result. As root; everything lies under target/image.
set -eu
cd "$(dirname "$0")/../.."
work=$PWD/target/image
mkdir -p "$work/build"
buildah="buildah --root $work/storage --runroot $work/run --storage-driver vfs"
rust_tag=$(sed -n 's/^ARG RUST_TAG=//p' Dockerfile)
openresty_tag=$(sed -n 's/^ARG OPENRESTY_TAG=//p' Dockerfile)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

container=
cleanup() {
    [ -z "$container" ] || $buildah rm "$container" > /dev/null || true
    # What vfs keeps is a copy of every layer.
    $buildah rm --all > /dev/null 2>&1 || true
    $buildah rmi --all --force > /dev/null 2>&1 || true
    rm -rf "$work/storage" "$work/run" "$work/context"
}
trap cleanup EXIT

. ./tests/image/roots.sh
root rust
root openresty

# image NAME ROOT [INSTRUCTION]
image() {
    rm -rf "$work/context"
    mkdir -p "$work/context"
    ln "$work/$2.tar" "$work/context/root.tar"
    printf 'FROM scratch\nADD root.tar /\n%s\n' "${3:-}" > "$work/context/Dockerfile"
    $buildah bud --quiet --isolation chroot --tag "$1" "$work/context" > /dev/null
}
cargo_home=${CARGO_HOME:-$HOME/.cargo}
image "rust:$rust_tag" rust "ENV CARGO_HOME=$cargo_home"
image "openresty/openresty:$openresty_tag" openresty

# What this machine has compiled already of the dependencies is not compiled again: the compiler is the same.
for made in release command; do
    if [ ! -d "$work/build/$made" ] && [ -d "target/$made" ]; then
        cp -a "target/$made" "$work/build/$made"
    fi
done
echo "image-test: the image"
cargo fetch --locked --quiet
$buildah bud --isolation chroot --network host --format docker --pull-never \
    --volume "$(rustc --print sysroot):/usr/local/rust:ro" --volume "$cargo_home/registry:$cargo_home/registry" \
    --volume "$work/build:/src/target" \
    --build-arg "VERSION=$version" --build-arg "REVISION=test" --tag tenantauth . > "$work/build.log" 2>&1 || {
    tail -n 40 "$work/build.log" >&2
    exit 1
}
container=$($buildah from --pull-never tenantauth)
$buildah inspect --type image tenantauth > "$work/image.json"
TENANTAUTH_IMAGE_ROOT=$($buildah mount "$container") TENANTAUTH_IMAGE_CONFIG=$work/image.json \
    cargo test --locked --test image --test built-image
echo "image-test: $(du -sm "$($buildah mount "$container")" | cut -f 1) MiB, of which $(tar -tvf "$work/openresty.tar" | awk '{ size += $3 } END { print int(size / 1048576) }') MiB of the stand-in's base"
