# shellcheck shell=bash
# Starts processes that outlive the script, records them in pid files, and stops only those. Sourced after common.sh.
#
# A pid file holds the process id and its start time, so a recycled id is never signalled. Every process gets its own session,
# so that Ctrl-C in the terminal does not reach it. RUN_DIR is set by the caller.

# Starts a command in the background as a user; its output goes to RUN_DIR/NAME.log.
launch() { # name user command…
    local name=$1 user=$2 pid
    shift 2
    local prefix=()
    if [[ $user != "$(id -un)" ]]; then
        prefix=(setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups)
    fi
    # A background job of a script is not a group leader, so setsid does not fork, and $! is the id of the service.
    setsid "${prefix[@]}" "$@" </dev/null >>"$RUN_DIR/$name.log" 2>&1 9>&- &
    pid=$!
    # Otherwise the shell would report how it has ended.
    disown "$pid"
    printf '%s %s\n' "$pid" "$(start_time "$pid")" >"$RUN_DIR/$name.pid"
}

# Prints the clock ticks between boot and the start of a process; nothing if it does not run or is a zombie. A zombie whose other threads
# have not ended yet still runs: it holds its files and ports.
start_time() {
    local stat fields tasks
    read -r stat 2>/dev/null <"/proc/$1/stat" || return 0
    read -ra fields <<<"${stat##*) }"
    if [[ ${fields[0]} == Z ]]; then
        tasks=("/proc/$1/task/"*)
        ((${#tasks[@]} > 1)) || return 0
    fi
    printf '%s\n' "${fields[19]}"
}

# Prints the id of a recorded process that still runs; fails when there is none.
running_pid() { # name
    local pid started
    [[ -s $RUN_DIR/$1.pid ]] || return 1
    read -r pid started <"$RUN_DIR/$1.pid"
    [[ -n $started && $(start_time "$pid") == "$started" ]] || return 1
    printf '%s\n' "$pid"
}

is_running() { running_pid "$1" >/dev/null; }

# The largest resident memory so far, in MB.
peak_mb() { # name
    awk '/^VmHWM/ { print int($2 / 1024) }' "/proc/$(running_pid "$1")/status"
}
is_gone() { ! kill -0 "$1" 2>/dev/null || [[ -z $(start_time "$1") ]]; }

# Prints a process and all of its descendants, parents first.
process_tree() { # pid
    local -A children=()
    local stat fields file pid queue=("$1") tree=()
    for file in /proc/[0-9]*/stat; do
        # The process may have ended since it was listed.
        read -r stat 2>/dev/null <"$file" || continue
        pid=${stat%% *}
        read -ra fields <<<"${stat##*) }"
        children[${fields[1]}]+="$pid "
    done
    while ((${#queue[@]} > 0)); do
        tree+=("${queue[0]}")
        # shellcheck disable=SC2206 # a list of numbers
        queue=("${queue[@]:1}" ${children[${queue[0]}]:-})
    done
    printf '%s\n' "${tree[@]}"
}

# The CPU time of a process and all of its descendants, the ended ones included, in milliseconds.
cpu_ms() { # pid
    local pid stat fields ticks=0
    while read -r pid; do
        read -r stat 2>/dev/null <"/proc/$pid/stat" || continue
        read -ra fields <<<"${stat##*) }"
        ((ticks += fields[11] + fields[12] + fields[13] + fields[14])) || true
    done < <(process_tree "$1")
    printf '%d\n' $((ticks * 1000 / $(getconf CLK_TCK)))
}

# Lets all others have the processors first. The session of a process may have a priority of its own, which then is the one that counts.
give_way() { # pid
    renice --priority 19 --pgrp "$1" >/dev/null
    [[ ! -e /proc/$1/autogroup ]] || echo 19 >"/proc/$1/autogroup"
}

# Sends a signal to a recorded process, waits until its whole tree is gone, and kills the rest at the deadline.
stop_process() { # name signal seconds
    local name=$1 signal=$2 deadline=$3 pid member tree
    pid=$(running_pid "$name") || {
        rm -f "$RUN_DIR/$name.pid"
        return 0
    }
    tree=$(process_tree "$pid")
    mapfile -t tree <<<"$tree"
    if [[ $signal == KILL ]]; then
        kill -KILL "${tree[@]}" 2>/dev/null || true
    else
        kill "-$signal" "$pid" 2>/dev/null || true
    fi
    for member in "${tree[@]}"; do
        wait_until "$deadline" is_gone "$member" || {
            warn "$name did not stop within $deadline s; killing it"
            kill -KILL "${tree[@]}" 2>/dev/null || true
            wait_until 5 is_gone "$member" || die "$name (process $member) cannot be stopped"
        }
    done
    rm -f "$RUN_DIR/$name.pid"
}

# Prints free loopback TCP ports, all different. They are below the range from which Linux picks the ports of outgoing
# connections, so that a restarted service finds its port free.
free_ports() { # count
    local -A taken=()
    local address port chosen=0
    while read -r _ address _; do
        taken[$((16#${address##*:}))]=1
    done < <(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -v local_address)
    while ((chosen < $1)); do
        port=$((20000 + SRANDOM % 12000))
        [[ -z ${taken[$port]:-} ]] || continue
        taken[$port]=1
        printf '%s\n' "$port"
        chosen=$((chosen + 1))
    done
}

# Waits until a check succeeds; fails at the deadline, or as soon as the process has ended.
wait_for_service() { # name seconds check…
    local name=$1 deadline=$2
    shift 2
    wait_until "$deadline" ended_or "$name" "$@" && is_running "$name"
}
ended_or() { # name check…
    local name=$1
    shift
    ! is_running "$name" || "$@"
}

port_answers() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# --- process groups ------------------------------------------------------------------------------------------------------

GROUP_PID=''

# Starts a command or function in the background, in a process group of its own, so that one signal ends everything that it
# starts. A function stops at its first failing command, as a script does.
start_group() { # command…
    set -m
    (
        set +m
        # The traps of the script are not for the group.
        trap - EXIT INT TERM
        "$@"
    ) </dev/null &
    GROUP_PID=$!
    set +m
}

# Waits for the group, and fails when its command fails.
wait_for_group() {
    local result=0
    wait "$GROUP_PID" || result=$?
    # Processes that the command has left behind.
    kill -KILL -- "-$GROUP_PID" 2>/dev/null || true
    GROUP_PID=''
    return "$result"
}

# Ends the group, if one is running.
end_group() { # signal
    [[ -n $GROUP_PID ]] || return 0
    kill "-$1" -- "-$GROUP_PID" 2>/dev/null || true
    wait "$GROUP_PID" 2>/dev/null || true
    kill -KILL -- "-$GROUP_PID" 2>/dev/null || true
    GROUP_PID=''
}
