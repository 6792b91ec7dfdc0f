#!/bin/sh
# Installs the Debian packages that building, demo and tests need, and those given as arguments; does nothing if
# they are there.
set -eu

packages="libdpdk-dev dpdk gcc libc6-dev clang libclang-dev libbpf-dev pkg-config iproute2 ethtool procps util-linux
    nginx-light dnsmasq-base hey wrk curl bind9-dnsutils iputils-ping traceroute openssh-client openssh-server
    nftables tcpdump python3 python3-scapy python3-pytest $*"

fail() {
    echo "error: $*" >&2
    exit 1
}

command -v cargo >/dev/null ||
    fail "there is no Rust toolchain; it is not taken from Debian, whose is too old; try https://rustup.rs"
command -v dpkg-query >/dev/null ||
    fail "dpkg is missing; this script knows Debian only; install what these packages hold: $packages"

missing=
for package in $packages; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done

# Installing must not start services here: nginx and sshd are wanted as programs, not as servers of this machine.
# Policy 9.3.3 of Debian names this file as the way to say so; one that is there already is left alone.
policy=/usr/sbin/policy-rc.d
hold_services() {
    [ -e $policy ] && return
    # shellcheck disable=SC2016
    $sudo sh -c 'printf "#!/bin/sh\nexit 101\n" >$0 && chmod 755 $0' $policy
    trap '$sudo rm -f $policy' EXIT
    trap 'exit 130' INT TERM HUP
}

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then
        sudo=
    elif command -v sudo >/dev/null; then
        sudo=sudo
    else
        fail "packages are missing and only root can install them; try as root: apt-get install$missing"
    fi
    echo "installing:$missing"
    unwanted=
    [ -e /usr/sbin/nginx ] || unwanted="$unwanted nginx.service"
    [ -e /usr/sbin/sshd ] || unwanted="$unwanted ssh.service"
    case " $missing " in *" haproxy "*) unwanted="$unwanted haproxy.service" ;; esac
    hold_services
    $sudo apt-get update -qq
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
    if [ -n "$unwanted" ] && [ -d /run/systemd/system ]; then
        # Neither at the next boot.
        # shellcheck disable=SC2086
        $sudo systemctl disable -q $unwanted || true
    fi
fi

libdir=$(pkg-config --variable=libdir libdpdk)
for driver in af_packet af_xdp tap pcap virtio e1000; do
    [ -e "$libdir/librte_net_$driver.so" ] ||
        fail "DPDK's driver net_$driver is not in $libdir; try apt-get install --reinstall libdpdk-dev"
done
