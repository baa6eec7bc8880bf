# shellcheck shell=bash
# A private PostgreSQL, 15 or newer. Sourced by services.

readonly POSTGRES_OLDEST=15

postgres_bin() {
    local dir newest='' version
    for dir in /usr/lib/postgresql/*/bin; do
        [[ -x $dir/postgres ]] || continue
        version=${dir%/bin} version=${version##*/}
        ((version >= POSTGRES_OLDEST)) || continue
        [[ -n $newest ]] && ((version < ${newest%% *})) && continue
        newest="$version $dir"
    done
    [[ -n $newest ]] || die "found no PostgreSQL $POSTGRES_OLDEST or newer under /usr/lib/postgresql"
    printf '%s\n' "${newest#* }"
}

postgres_start() {
    local bin data
    bin=$(postgres_bin)
    data=$DATA_DIR/postgres
    [[ -s $data/PG_VERSION ]] || postgres_create "$bin" "$data"
    # After a kill, the old id may still belong to a zombie, which PostgreSQL would take for a running server. No process of
    # this data directory is left at this point.
    rm -f "$data/postmaster.pid"
    launch postgres "$POSTGRES_USER" "$bin/postgres" -D "$data"
    wait_for_service postgres 60 postgres_answers
}

postgres_answers() {
    "$(postgres_bin)/pg_isready" -q -h 127.0.0.1 -p "$POSTGRES_PORT" -U grapnel -d grapnel
}

postgres_create() { # bin data
    local bin=$1 data=$2 password_file=$DATA_DIR/postgres-password
    make_data_dir "$data" "$POSTGRES_USER"
    (umask 077 && printf '%s\n' "$PASSWORD" >"$password_file")
    as_owner "$POSTGRES_USER" "$password_file"
    # --no-sync saves a second; the server itself runs with fsync.
    run_as "$POSTGRES_USER" "$bin/initdb" --pgdata "$data" --username grapnel --pwfile "$password_file" \
        --auth password --encoding UTF8 --locale C.UTF-8 --no-sync >>"$RUN_DIR/postgres.log" 2>&1
    rm -f "$password_file"
    postgres_settings >>"$data/postgresql.conf"
    [[ -z $LISTEN ]] || printf 'host all all samenet password\n' >>"$data/pg_hba.conf"
    # The database of the user is created before anyone can connect.
    run_as "$POSTGRES_USER" "$bin/postgres" --single -D "$data" postgres \
        <<<'CREATE DATABASE grapnel' >>"$RUN_DIR/postgres.log" 2>&1
}

# Durability is not reduced: fsync, synchronous_commit and full_page_writes keep their defaults (on). The other settings are
# for an event store that writes steadily on a machine shared with everything else.
postgres_settings() {
    local memory_mb shared_mb
    memory_mb=$(($(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) / 1024))
    # A quarter of the memory is the usual advice; a development machine also runs everything else, so at most 1 GB.
    shared_mb=$((memory_mb / 4))
    ((shared_mb <= 1024)) || shared_mb=1024
    cat <<SETTINGS

# --- Grapnel's private services ---
listen_addresses = '127.0.0.1${LISTEN:+,$LISTEN}'
port = $POSTGRES_PORT
unix_socket_directories = ''
max_connections = 300
shared_buffers = ${shared_mb}MB
effective_cache_size = $((memory_mb / 2))MB
work_mem = 8MB
maintenance_work_mem = 128MB
# The first change of a page after a checkpoint writes the whole page to the log. So checkpoints are rare and spread out, and
# page images are compressed.
max_wal_size = 4GB
min_wal_size = 512MB
checkpoint_timeout = 15min
wal_compression = lz4
wal_buffers = 16MB
# On solid-state disks, random reads cost about as much as sequential ones.
random_page_cost = 1.1
# Statements take milliseconds, less than it takes to compile them.
jit = off
# Narrow rows are updated all the time, so vacuum early.
autovacuum_naptime = 15s
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %a '
log_checkpoints = off
SETTINGS
    local setting
    for setting in "${POSTGRES_EXTRA[@]}"; do
        printf "%s = '%s'\n" "${setting%%=*}" "${setting#*=}"
    done
}

# SIGINT is PostgreSQL's fast shutdown: open transactions are rolled back, nothing is lost.
postgres_stop() { stop_process postgres INT 30; }
