# shellcheck shell=bash
# State directories: each holds the records and data of one set of processes. Sourced after common.sh.

# Runs a function while no other command uses STATE_DIR. The lock is outside the directory, so that `down` can remove it.
locked() { # function argument…
    [[ -d $STATE_DIR || $COMMAND == up ]] || {
        note "nothing under $STATE_DIR"
        return 0
    }
    mkdir -p "$(dirname "$STATE_DIR")"
    # Repeated if the previous holder was a `down`, which removes the lock file.
    until [[ /proc/self/fd/9 -ef $STATE_DIR.lock ]]; do
        exec 9>>"$STATE_DIR.lock"
        flock -w 180 9 || die "another command is using $STATE_DIR"
    done
    "$@"
}
