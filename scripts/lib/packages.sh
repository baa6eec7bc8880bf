# shellcheck shell=bash
# Installs missing Debian packages that a script needs. Sourced after common.sh.
#
# Invariants: a package that is installed here starts no service, now or at the next boot. A machine that has everything is
# not changed and needs no network.

# Installs missing packages. Pairs: a command (or path pattern) that must exist, and the package that contains it.
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
        # Not `command -v`, which would find a function of the script with that name.
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
    # One installation at a time, since the whole machine shares the policy file below.
    (
        flock 8
        "${privileged[@]}" bash -c "$APT_INSTALL" apt-install "$@" >&2
    ) 8>"${TMPDIR:-/tmp}/grapnel-apt.$EUID.lock"
}

# Runs as root, as one script, so that sudo asks once. policy-rc.d is Debian's way to keep packages from starting services: an
# existing file is respected, and ours is removed again.
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
