# shellcheck shell=bash
# The case `upgrade` of check-node: numbered traffic while everything under it is exchanged, deleted and restarted. Sourced after
# node_cases.sh.
#
# What always holds: an answer of 2xx is kept, and any other answer is an honest 503.

case_upgrade() {
    start_prober
    disturb "helm upgrade, with a migration" upgrade
    disturb "helm rollback, without its way back" rollback
    disturb "controller deleted" platform delete pod --wait --selector app.kubernetes.io/component=controller
    disturb "api pods deleted, one by one" delete_api_pods
    disturb "worker evicted" evict_worker
    disturb "node drained" drain_node
    disturb "RabbitMQ restarted" services restart rabbitmq
    disturb "Redis restarted" services restart redis
    disturb "PostgreSQL restarted" services restart postgres
    disturb "API server restarted" cluster restart apiserver
    end_prober
}

upgrade() {
    install_release --set "images.runtime.tag=$NEXT_TAG,images.controller.tag=$NEXT_TAG"
    # Images that were given bring none.
    [[ ! -e $IMAGES/next ]] || [[ $(sql "SELECT max(version) FROM _sqlx_migrations") == "$NEXT_MIGRATION" ]] ||
        die "the migration of the new image was not applied"
}

# The older release goes on with the newer schema.
rollback() {
    helm_does rollback "$RELEASE" --namespace "$PLATFORM" --wait --timeout "${PATIENCE}s"
}

delete_api_pods() {
    local pod
    for pod in $(platform get pods --selector app.kubernetes.io/component=api -o name); do
        platform delete --wait "$pod"
        platform rollout status deployment/grapnel-api --timeout "${PATIENCE}s"
    done
}

evict_worker() {
    local pod
    pod=$(platform get pods --selector app.kubernetes.io/component=worker -o jsonpath='{.items[0].metadata.name}')
    kubectl create --raw "/api/v1/namespaces/$PLATFORM/pods/$pod/eviction" -f - <<JSON
{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "$pod", "namespace": "$PLATFORM"}}
JSON
    platform wait --for=delete --timeout "${PATIENCE}s" "pod/$pod"
}

# There is no other node to go to. So the disruption budget keeps the last ready api pod, for as long as anyone has patience, and
# webhooks are accepted while all else is away.
drain_node() {
    local node
    node=$(kubectl get nodes -o jsonpath='{.items[0].metadata.name}')
    if kubectl drain "$node" --ignore-daemonsets --delete-emptydir-data --timeout 20s >"$RUN_DIR/drain.log" 2>&1; then
        die "the last api pod was evicted too"
    fi
    grep -q "violate the pod's disruption budget" "$RUN_DIR/drain.log" || die "drain failed: $(tail -n 1 "$RUN_DIR/drain.log")"
    [[ $(platform get deployment grapnel-api -o jsonpath='{.status.readyReplicas}') == 1 ]] || die "the budget kept another number than one"
    post acme "drained-$FIRST"
    kubectl uncordon "$node"
}

# --- the prober ------------------------------------------------------------------------------------------------------------

start_prober() {
    start_probe prober "$GRAPNEL_HOST_ADDRESS" --rate 50 --duration-seconds 900 --retry-unknown --settle-seconds 120
    await 60 "traffic" delivered_since 0
}

end_prober() {
    kill -INT "$(running_pid probe)"
    await 180 "the prober to settle" probe_ended
    ledger_is_clean
    # An answer is a promise or an honest refusal.
    [[ $(ledger '.answers | keys | map(select(. != "200" and . != "202" and . != "503")) | length') == 0 ]] ||
        die "answers that are neither 2xx nor 503: $(ledger -c .answers)"
    # shellcheck disable=SC2034 # by run_case
    RESULT="$(ledger .accepted) accepted, $(ledger .deliveries.lost) lost, $(ledger .deliveries.phantom) phantom, answers $(ledger -c .answers)"
    remove prober
}
probe_ended() { ! is_running probe; }

# Does something, and goes on when everything is ready and traffic flows again.
disturb() { # what command…
    local what=$1 started before
    started=$(now_ms)
    shift
    "$@" >>"$RUN_DIR/disturb.log" 2>&1 || die "$what failed: $(tail -n 1 "$RUN_DIR/disturb.log")"
    platform rollout status deployment/grapnel-api deployment/grapnel-controller --timeout "${PATIENCE}s" >>"$RUN_DIR/disturb.log" 2>&1 ||
        die "not ready after: $what"
    await 60 "PostgreSQL after: $what" sql "SELECT 1"
    before=$(delivered)
    await 90 "deliveries after: $what" delivered_since "$before"
    note "  $what: $(seconds $(($(now_ms) - started)))"
}

# The prober tells nothing before its end, so the database is asked.
delivered() { sql "SELECT count(*) FROM delivery_attempts WHERE succeeded"; }
delivered_since() { (($(delivered) > $1 + 20)); }

sql() { # statement
    if [[ -n $DATABASE_POD ]]; then
        platform exec "$DATABASE_POD" -- psql --username grapnel --dbname grapnel -Atqc "$1" 2>/dev/null
    else
        psql "$DATABASE_URL" -Atqc "$1" 2>/dev/null
    fi
}
