# shellcheck shell=bash
# State directories: what a script started and remembers, one directory for each set of processes. Sourced after common.sh.

# Runs a function while no other command works on STATE_DIR. The lock lies beside it, so that `down` can remove the directory.
locked() { # function argument…
    [[ -d $STATE_DIR || $COMMAND == up ]] || {
        note "nothing under $STATE_DIR"
        return 0
    }
    mkdir -p "$(dirname "$STATE_DIR")"
    # Once more where the previous holder was a `down` and took the lock file away with it.
    until [[ /proc/self/fd/9 -ef $STATE_DIR.lock ]]; do
        exec 9>>"$STATE_DIR.lock"
        flock -w 180 9 || die "another command works on $STATE_DIR"
    done
    "$@"
}
