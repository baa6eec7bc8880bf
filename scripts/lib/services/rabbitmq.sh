# shellcheck shell=bash
# A private RabbitMQ with its management plugin, and the Erlang port mapper (epmd) that it needs. Sourced by services.
#
# The system's RabbitMQ is neither used nor disturbed: home, cookie and epmd are private, and the distribution port is on
# loopback. Several nodes of the same name run side by side, since each has its own epmd on its own port.

rabbitmq_server() { compgen -G '/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server' | tail -n 1; }

rabbitmq_start() {
    local dir=$DATA_DIR/rabbitmq
    [[ -d $dir ]] || rabbitmq_create "$dir"
    epmd_start
    launch rabbitmq "$RABBITMQ_USER" env -i \
        PATH="$PATH" \
        LANG=C.UTF-8 \
        HOME="$dir" \
        ERL_EPMD_PORT="$EPMD_PORT" \
        ERL_EPMD_ADDRESS=127.0.0.1 \
        RABBITMQ_NODENAME=grapnel@localhost \
        RABBITMQ_DIST_PORT="$RABBITMQ_DIST_PORT" \
        RABBITMQ_CONF_ENV_FILE="$dir/rabbitmq-env.conf" \
        RABBITMQ_CONFIG_FILE="$dir/rabbitmq.conf" \
        RABBITMQ_ADVANCED_CONFIG_FILE="$dir/advanced.config" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$dir/enabled_plugins" \
        RABBITMQ_MNESIA_BASE="$dir/mnesia" \
        RABBITMQ_LOG_BASE="$dir/log" \
        RABBITMQ_PID_FILE="$dir/beam.pid" \
        RABBITMQ_SCHEDULER_BIND_TYPE=u \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}' \
        "$(rabbitmq_server)"
    wait_for_service rabbitmq 180 rabbitmq_answers
}

# Starts an epmd for this node. It keeps running while the node restarts, and `down` stops it.
epmd_start() {
    is_running epmd || launch epmd "$RABBITMQ_USER" epmd -address 127.0.0.1 -port "$EPMD_PORT"
    wait_for_service epmd 10 port_answers "$EPMD_PORT"
}

rabbitmq_create() { # dir
    local dir=$1
    make_data_dir "$dir" "$RABBITMQ_USER"
    (
        umask 077
        printf '%s' "$PASSWORD" >"$dir/.erlang.cookie"
        chmod 400 "$dir/.erlang.cookie"
        : >"$dir/rabbitmq-env.conf"
        printf '[rabbitmq_management].\n' >"$dir/enabled_plugins"
        # Flushing a preallocated log of quorum queues does not change the metadata of the file system.
        printf '[{ra, [{wal_pre_allocate, true}]}].\n' >"$dir/advanced.config"
        rabbitmq_settings >"$dir/rabbitmq.conf"
        mkdir "$dir/log"
    )
    as_owner "$RABBITMQ_USER" "$dir" "$dir"/.erlang.cookie "$dir"/*
}

rabbitmq_settings() {
    cat <<SETTINGS
listeners.tcp.1 = 127.0.0.1:$RABBITMQ_PORT
${LISTEN:+listeners.tcp.2 = $LISTEN:$RABBITMQ_PORT}
management.tcp.ip = ${LISTEN:-127.0.0.1}
management.tcp.port = $RABBITMQ_MANAGEMENT_PORT
default_user = grapnel
default_pass = $PASSWORD
log.file = rabbitmq.log
log.file.level = info
log.console = false
# The demo must run on a machine with little free disk; the queues hold only ids.
disk_free_limit.absolute = 100MB
# The default of 512 MB would use as much memory.
raft.wal_max_size_bytes = 134217728
SETTINGS
}

rabbitmq_answers() {
    curl -fsS --max-time 2 -K - "http://${LISTEN:-127.0.0.1}:$RABBITMQ_MANAGEMENT_PORT/api/overview" \
            <<<"user = \"grapnel:$PASSWORD\"" >/dev/null &&
        port_answers "$RABBITMQ_PORT"
}

rabbitmq_ctl() { # argument…
    run_as "$RABBITMQ_USER" env -i \
        PATH="$PATH" \
        LANG=C.UTF-8 \
        HOME="$DATA_DIR/rabbitmq" \
        ERL_EPMD_PORT="$EPMD_PORT" \
        RABBITMQ_CONF_ENV_FILE="$DATA_DIR/rabbitmq/rabbitmq-env.conf" \
        RABBITMQ_NODENAME=grapnel@localhost \
        "$(dirname "$(rabbitmq_server)")/rabbitmqctl" -q "$@"
}

rabbitmq_stop() { stop_process rabbitmq TERM 60; }
