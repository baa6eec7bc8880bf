# shellcheck shell=bash
# Memory of processes, read from /proc. Sourced after processes.sh.

# Prints the present memory of a process with all its descendants, in MB. Shared pages count once, by their share (PSS).
memory_mb() { # pid
    local kb=0 pid pss
    for pid in $(process_tree "$1"); do
        pss=$(sed -n 's/^Pss:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$pid/smaps_rollup" 2>/dev/null) || continue
        kb=$((kb + ${pss:-0}))
    done
    printf '%s\n' "$((kb / 1024))"
}
