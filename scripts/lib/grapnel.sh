# shellcheck shell=bash
# Builds and runs a private Grapnel with its own keys, ports and database. Sourced after processes.sh and rust.sh.

# Builds `grapnel`; GRAPNEL is its path. A debug build is enough where speed does not matter.
build_grapnel() { # release|dev
    GRAPNEL=$(build_program grapnel "$1")
}

# Builds the load generator; LOADTEST is its path.
build_loadtest() { # release|dev
    # shellcheck disable=SC2034 # used by the script
    LOADTEST=$(build_program grapnel-loadtest "$1")
}

# Builds a program and prints its path.
build_program() { # name release|dev
    local program directory=$2
    [[ $directory != dev ]] || directory=debug
    program=$(target_dir)/$directory/$1
    note "Building $1 ($2)"
    # The whole workspace is selected, as for the tests, so that dependencies are built with the same features, once.
    cargo build --manifest-path "$ROOT_DIR/Cargo.toml" --locked --profile "$2" --workspace --bin "$1" >&2
    [[ -x $program ]] || die "no binary at $program"
    printf '%s\n' "$program"
}

# Exports the settings of a private instance in development mode: loopback only, fresh keys.
grapnel_settings() { # http-port ops-port
    export GRAPNEL_ENV=development
    # A whole load comes from one address.
    export GRAPNEL_MAX_RATE_LIMIT_PER_MINUTE=0
    export GRAPNEL_HTTP_ADDR=127.0.0.1:$1
    export GRAPNEL_OPS_ADDR=127.0.0.1:$2
    # Any free port: the public one has the management routes too, since there is a key.
    export GRAPNEL_MANAGEMENT_ADDR=127.0.0.1:0
    MANAGEMENT_API_KEY=$(openssl rand -hex 16)
    GRAPNEL_SEALING_KEYS=local:$(openssl rand -base64 32)
    export MANAGEMENT_API_KEY GRAPNEL_SEALING_KEYS
    export API=http://$GRAPNEL_HTTP_ADDR/api/v1
}

# Starts a role and waits until it is ready.
start_grapnel() { # name ops-address argument…
    local name=$1 ops=$2
    shift 2
    launch "$name" "$(id -un)" env GRAPNEL_OPS_ADDR="$ops" "$GRAPNEL" "$@"
    wait_for_service "$name" 30 is_ready "$ops" || {
        tail -n 30 "$RUN_DIR/$name.log" >&2
        die "grapnel $1 did not become ready; its log is above"
    }
}

is_ready() { curl -fsS --max-time 2 "http://$1/readyz"; }

# Copies the example files, with the addresses of this private instance instead of the usual ones.
write_examples() { # directory sink-address
    local example
    mkdir -p "$1"
    for example in "$ROOT_DIR"/examples/*.yaml; do
        sed -e "s|http://127.0.0.1:8080/|http://$GRAPNEL_HTTP_ADDR/|" -e "s|http://127.0.0.1:9099/|http://$2/|" \
            "$example" >"$1/${example##*/}"
    done
}

# Prints the value of a secret in an example file.
secret_of() { # example secret-name
    sed -n "/^  name: $2\$/,/^---/s/^  \(secret\|token\): //p" "$ROOT_DIR/examples/$1.yaml"
}

# Creates a database for one measurement and chooses a prefix for its queues. MAINTENANCE_URL is set by the caller.
create_database() { # name
    DATABASE=$1_$(openssl rand -hex 4)
    psql "$MAINTENANCE_URL" --quiet --command "CREATE DATABASE $DATABASE"
    export DATABASE_URL=${MAINTENANCE_URL%/*}/$DATABASE GRAPNEL_QUEUE_PREFIX=$DATABASE-
}

# Drops it, with its queues.
drop_database() {
    local queue
    curl -fsS "$RABBITMQ_MANAGEMENT_URL/api/queues?columns=name" |
        jq -r --arg prefix "$GRAPNEL_QUEUE_PREFIX" '.[].name | select(startswith($prefix)) | @uri' |
        while read -r queue; do
            curl -fsS -X DELETE "$RABBITMQ_MANAGEMENT_URL/api/queues/%2F/$queue"
        done
    psql "$MAINTENANCE_URL" --quiet --command "DROP DATABASE $DATABASE WITH (FORCE)"
}
