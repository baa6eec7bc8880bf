# shellcheck shell=bash
# Cleans up when a script ends. Sourced after common.sh.

# Calls a function with the exit code when the script ends: at its end, after a failure, and at Ctrl-C (130) or SIGTERM
# (143). A second Ctrl-C does not stop the clean-up, and neither does a part of it that fails.
at_exit() { # function
    AT_EXIT=$1
    trap 'leave $?' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

leave() { # exit-code
    trap '' INT TERM
    "$AT_EXIT" "$1" || true
    exit "$1"
}

was_interrupted() { (($1 == 130 || $1 == 143)); } # exit-code
