# shellcheck shell=bash
# Messages, colours and small helpers of every script. Sourced, never run.
#
# Messages go to standard error: standard output is reserved for the result of a script (`services env`).

set -euo pipefail
shopt -s inherit_errexit

readonly EXIT_USAGE=64

ROOT_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export ROOT_DIR

# Colour is for people: there is none in a file, in a pipe, or when NO_COLOR is set.
if [[ -t 1 && -t 2 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    readonly BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' CYAN=$'\e[36m' RESET=$'\e[0m'
else
    readonly BOLD='' DIM='' RED='' GREEN='' YELLOW='' CYAN='' RESET=''
fi
: "$BOLD$DIM$RED$GREEN$YELLOW$CYAN$RESET"

say() { printf '%s\n' "$*" >&2; }
note() { printf '%s%s%s\n' "$DIM" "$*" "$RESET" >&2; }
warn() { printf '%swarning:%s %s\n' "$YELLOW" "$RESET" "$*" >&2; }
die() {
    printf '%serror:%s %s\n' "$RED" "$RESET" "$*" >&2
    exit 1
}
usage_error() {
    printf '%serror:%s %s (see --help)\n' "$RED" "$RESET" "$*" >&2
    exit "$EXIT_USAGE"
}

# Prints the help text of a script: the comment at its top, so that help and source cannot differ.
print_help() { # file
    sed -n '2,/^$/{/^#/!d;s/^# \{0,1\}//;p}' "$1"
}

# Milliseconds since the epoch.
now_ms() {
    local now=${EPOCHREALTIME/[.,]/}
    printf '%s\n' "$((now / 1000))"
}

# 1234 → 1.2 s
seconds() { printf '%d.%d s\n' "$(($1 / 1000))" "$(($1 % 1000 / 100))"; }

# Runs a command every 50 ms until it succeeds or the deadline has passed.
wait_until() { # seconds command…
    local deadline=$(($(now_ms) + $1 * 1000))
    shift
    until "$@" >/dev/null 2>&1; do
        (($(now_ms) < deadline)) || return 1
        sleep 0.05
    done
}

# True when a name is among others.
contains() { # name other…
    local other
    for other in "${@:2}"; do
        [[ $1 != "$other" ]] || return 0
    done
    return 1
}
