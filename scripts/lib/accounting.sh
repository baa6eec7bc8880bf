# shellcheck shell=bash
# Processor time and memory of processes, read from /proc. Sourced after processes.sh.

# Prints the processor time of a process with all its descendants, in milliseconds. The time of descendants that have ended
# is part of their parents' time, so the difference of two readings is exact for services that wait for their children.
cpu_ms() { # pid
    local ticks=0 pid stat fields
    for pid in $(process_tree "$1"); do
        read -r stat 2>/dev/null <"/proc/$pid/stat" || continue
        read -ra fields <<<"${stat##*) }"
        ticks=$((ticks + fields[11] + fields[12] + fields[13] + fields[14]))
    done
    printf '%s\n' "$((ticks * 1000 / CLOCK_TICKS))"
}
CLOCK_TICKS=$(getconf CLK_TCK)

# Prints the present memory of a process with all its descendants, in MB. Shared pages count once, by their share (PSS).
memory_mb() { # pid
    local kb=0 pid pss
    for pid in $(process_tree "$1"); do
        pss=$(sed -n 's/^Pss:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$pid/smaps_rollup" 2>/dev/null) || continue
        kb=$((kb + ${pss:-0}))
    done
    printf '%s\n' "$((kb / 1024))"
}

# Prints the peak memory of a single process, in MB.
peak_memory_mb() { # pid
    sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$1/status" | { read -r kb && printf '%s\n' "$((kb / 1024))"; }
}

# Prints two processor times of the whole machine since boot, in milliseconds: busy (including stolen time), and in total.
machine_ms() {
    local user nice system idle iowait irq softirq steal
    read -r _ user nice system idle iowait irq softirq steal _ </proc/stat
    local spent=$((user + nice + system + irq + softirq + steal))
    printf '%s %s\n' "$((spent * 1000 / CLOCK_TICKS))" "$(((spent + idle + iowait) * 1000 / CLOCK_TICKS))"
}
