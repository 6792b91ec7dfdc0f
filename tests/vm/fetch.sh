#!/bin/sh
# Gets what the virtual machines of the tests are made of: a kernel, QEMU, busybox and ipvsadm.
#
#   tests/vm/fetch.sh DIR
#
# They are Debian packages that are downloaded and unpacked into DIR, not installed: no root is needed, no
# package of the user's has to make room for them, and no service comes with them. Does nothing if DIR is
# complete.
set -eu

dir=${1:?usage: fetch.sh DIR}
[ -e "$dir/complete" ] && exit 0

fail() {
    echo "error: $*" >&2
    exit 1
}

command -v apt-get >/dev/null || fail "apt-get is missing; Debian packages come from nowhere else"
[ "$(dpkg --print-architecture)" = amd64 ] || fail "the virtual machines are made for amd64 only"

# The kernel of Debian's own cloud images: small, with everything for virtual machines.
kernel() {
    apt-cache depends linux-image-cloud-amd64 |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1
}

# What apt would have to install for some programs, but for what it would be installed already.
missing_for() {
    apt-get install -s -qq --no-install-recommends "$@" | sed -n 's/^Inst \([^ ]*\).*/\1/p'
}

download() {
    image=$(kernel)
    [ -n "$image" ] || return 1
    programs=$(missing_for qemu-system-x86 busybox-static ipvsadm) || return 1
    # Root needs telling that it may download itself, for nobody else may write to DIR.
    # shellcheck disable=SC2086
    (cd "$dir/debs" && apt-get download -qq -o APT::Sandbox::User=root "$image" $programs)
}

update() {
    if [ "$(id -u)" = 0 ]; then
        apt-get update -qq
    else
        command -v sudo >/dev/null && sudo -n apt-get update -qq
    fi
}

rm -rf "$dir"
mkdir -p "$dir/debs" "$dir/root"
# Lists of packages may be missing, or name versions that are there no longer.
download 2>/dev/null || { update && download; } || fail "apt-get can not download the packages"
for deb in "$dir"/debs/*.deb; do
    dpkg -x "$deb" "$dir/root"
done
rm -r "$dir/debs"
touch "$dir/complete"
