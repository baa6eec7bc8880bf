# shellcheck shell=bash
# The node and the datastores outside it, with everything that an installation of the chart needs. Sourced after
# services.sh and images.sh, by check-node and the demo.

readonly NODE_PORT=30080
readonly MANAGEMENT_NODE_PORT=30081

cluster() { "$ROOT_DIR/scripts/cluster" --state "$STATE_DIR/cluster" "$@"; }
kubectl() { KUBECONFIG=$STATE_DIR/cluster/kubeconfig "$KUBECTL" --request-timeout 30s "$@"; }
helm() { KUBECONFIG=$STATE_DIR/cluster/kubeconfig "$HELM" "$@"; }

# Keeps everything under one directory.
# shellcheck disable=SC2034 # used by services.sh
use_state() { # directory
    STATE_DIR=$(realpath -m "$1")
    RUN_DIR=$STATE_DIR/run
    SERVICES_STATE=$STATE_DIR/services
}

# Brings up the cluster and the datastores, loads the images and writes the values of the chart.
bring_up() {
    ensure_packages curl curl openssl openssl jq jq /bin/busybox busybox-static
    mkdir -p "$RUN_DIR"
    cluster up --audit-log
    eval "$(cluster env)"
    cluster build helm
    HELM=$(cluster path helm)
    services up --in-memory --listen "$GRAPNEL_HOST_ADDRESS"
    use_services
    load_all_images
    # shellcheck disable=SC2034 # used by the script
    API=http://$GRAPNEL_NODE_ADDRESS:$NODE_PORT/api/v1
    # shellcheck disable=SC2034 # used by check-node
    MANAGEMENT=http://$GRAPNEL_NODE_ADDRESS:$MANAGEMENT_NODE_PORT/api/v1
    write_values >"$STATE_DIR/values.yaml"
}

write_values() {
    common_values
    cat <<VALUES
external:
  postgres: {url: "$DATABASE_URL"}
  redis: {url: "$REDIS_URL"}
  rabbitmq: {url: "$RABBITMQ_URL", managementUrl: "$RABBITMQ_MANAGEMENT_URL"}
publicUrl: http://$GRAPNEL_NODE_ADDRESS:$NODE_PORT
VALUES
}

common_values() {
    cat <<VALUES
fullnameOverride: grapnel
images:
  runtime: {repository: $REPOSITORY/grapnel, tag: "$TAG"}
  controller: {repository: $REPOSITORY/grapnel-controller, tag: "$TAG"}
  loadtest: {repository: $REPOSITORY/grapnel-loadtest, tag: "$TAG"}
allowedDestinationCidrs: [10.0.0.0/8, $GRAPNEL_HOST_ADDRESS/32]
api:
  service: {type: NodePort, nodePort: $NODE_PORT}
  # All webhooks of a test come from one address.
  rateLimitPerMinute: 0
manage:
  service: {type: NodePort, nodePort: $MANAGEMENT_NODE_PORT}
VALUES
}

# Keeps the logs of all pods, the Events and the objects under STATE_DIR/failure.
keep_logs() {
    local folder=$STATE_DIR/failure pod
    # There is nothing to keep before the cluster is up.
    [[ -n ${KUBECTL:-} ]] || return 0
    rm -rf "$folder"
    mkdir -p "$folder"
    kubectl get all,integrations,networkpolicies --all-namespaces -o wide >"$folder/objects.txt" 2>&1
    kubectl get integrations --all-namespaces -o yaml >"$folder/integrations.yaml" 2>&1
    kubectl get events --all-namespaces --sort-by .lastTimestamp >"$folder/events.txt" 2>&1
    for pod in $(kubectl get pods --all-namespaces -o jsonpath='{range .items[*]}{.metadata.namespace}/{.metadata.name}{"\n"}{end}'); do
        kubectl --namespace "${pod%/*}" logs "${pod#*/}" --all-containers --prefix >"$folder/${pod/\//.}.log" 2>&1
        kubectl --namespace "${pod%/*}" logs "${pod#*/}" --all-containers --previous >"$folder/${pod/\//.}.previous.log" 2>/dev/null ||
            rm -f "$folder/${pod/\//.}.previous.log"
    done
    cp "$RUN_DIR"/*.log "$RUN_DIR"/*.json "$folder/" 2>/dev/null
    say "The logs are kept in $folder"
}

# Stops and removes everything except the logs of a failure.
take_down() {
    cluster down || true
    services down || true
    find "$STATE_DIR" -mindepth 1 -maxdepth 1 ! -name failure -exec rm -rf {} +
    rmdir "$STATE_DIR" 2>/dev/null || true
}
