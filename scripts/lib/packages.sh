# shellcheck shell=bash
# Installs Debian packages that a script needs and does not find. Sourced after common.sh.
#
# What always holds: a package installed from here starts no service of its own, now or at the next boot;
# a machine that has everything is left alone, offline too.

# Installs what is missing. Pairs: a command (or path pattern) that must exist, and the package that brings it.
ensure_packages() { # probe package [probe package…]
    local missing=() probe package
    while (($# > 0)); do
        probe=$1 package=$2
        shift 2
        have "$probe" || missing+=("$package")
    done
    ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
}

# True when a command is on the PATH, or a path pattern matches a file.
have() {
    case $1 in
        /*) compgen -G "$1" >/dev/null ;;
        # Not `command -v`: a function of the script with that name does not count.
        *) type -P "$1" >/dev/null ;;
    esac
}

install_packages() {
    command -v apt-get >/dev/null || die "missing: $*. This script installs Debian packages; please install the equivalents of your system"
    local privileged=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || die "missing packages: $*. Install them as root: apt-get install $*"
        privileged=(sudo)
    fi
    say "Installing Debian packages: $* (their own services are not started)"
    # One installation at a time, since the policy file below is shared by the whole machine.
    (
        flock 8
        "${privileged[@]}" bash -c "$APT_INSTALL" apt-install "$@" >&2
    ) 8>"${TMPDIR:-/tmp}/grapnel-apt.$EUID.lock"
}

# Runs with privileges, as a script of its own, so that sudo is asked once. policy-rc.d is Debian's switch against starting
# services; where one is there already it is respected, and put away again where it is ours.
# shellcheck disable=SC2016 # expanded by the inner shell
readonly APT_INSTALL='
set -euo pipefail
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    trap "rm -f $policy" EXIT
    printf "#!/bin/sh\nexit 101\n" >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -y -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
"${apt[@]}" install --no-install-recommends "$@" >/tmp/grapnel-apt.log 2>&1 ||
    { "${apt[@]}" update >/tmp/grapnel-apt.log 2>&1 && "${apt[@]}" install --no-install-recommends "$@" >>/tmp/grapnel-apt.log 2>&1; } ||
    { tail -n 20 /tmp/grapnel-apt.log; exit 1; }
rm -f /tmp/grapnel-apt.log
if [[ -d /run/systemd/system ]]; then
    for package in "$@"; do
        case $package in
            postgresql) systemctl disable --now postgresql ;;
            redis-server | rabbitmq-server) systemctl disable --now "$package" ;;
            etcd-server) systemctl disable --now etcd ;;
        esac
    done
    systemctl disable --now epmd.socket epmd.service || true
fi
'
