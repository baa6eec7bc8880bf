# shellcheck shell=bash
# Builds and runs a private Grapnel with its own keys, ports and database. Sourced after processes.sh and rust.sh.

# Builds the binary; GRAPNEL is its path. A debug build is enough where speed does not matter.
build_grapnel() { # release|dev
    local profile=$1 directory=$1
    [[ $profile != dev ]] || directory=debug
    note "Building grapnel ($profile)"
    # The whole workspace is selected, as for the tests, so that dependencies are built with the same features, once.
    cargo build --manifest-path "$ROOT_DIR/Cargo.toml" --locked --profile "$profile" --workspace --bin grapnel
    GRAPNEL=$(target_dir)/$directory/grapnel
    [[ -x $GRAPNEL ]] || die "no binary at $GRAPNEL"
    use_prober "$GRAPNEL"
}

# PROBER is the command of the load generator, up to the arguments of a run.
use_prober() { # program
    # shellcheck disable=SC2034 # used by the script
    PROBER=("$1" probe)
}

# Exports the settings of a private instance in development mode: loopback only, fresh keys.
grapnel_settings() { # http-port ops-port
    export GRAPNEL_ENV=development
    export GRAPNEL_HTTP_ADDR=127.0.0.1:$1
    export GRAPNEL_OPS_ADDR=127.0.0.1:$2
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
