# shellcheck shell=bash
# The node and the datastores of check-node, and what its cases look with. Sourced after grapnel.sh.

readonly PLATFORM=grapnel SHOP=shop RELEASE=grapnel
readonly NODE_PORT=30080
# Longer than anything takes on a machine with two busy cores.
readonly PATIENCE=120

cluster() { "$ROOT_DIR/scripts/cluster" --state "$STATE_DIR/cluster" "$@"; }
services() { "$ROOT_DIR/scripts/services" --state "$STATE_DIR/services" "$@"; }
kubectl() { KUBECONFIG=$STATE_DIR/cluster/kubeconfig "$KUBECTL" --request-timeout 30s "$@"; }
platform() { kubectl --namespace "$PLATFORM" "$@"; }
shop() { kubectl --namespace "$SHOP" "$@"; }
helm() { KUBECONFIG=$STATE_DIR/cluster/kubeconfig "$HELM" "$@"; }

prepare() {
    ensure_packages curl curl openssl openssl jq jq /bin/busybox busybox-static
    mkdir -p "$RUN_DIR"
    # Of a run that failed and was kept.
    stop_process probe KILL 10
    cluster up --audit-log
    eval "$(cluster env)"
    cluster build helm
    HELM=$(cluster path helm)
    services up --listen "$GRAPNEL_HOST_ADDRESS"
    eval "$(services env)"
    load_all_images
    API=http://$GRAPNEL_NODE_ADDRESS:$NODE_PORT/api/v1
    write_values >"$STATE_DIR/values.yaml"
    namespace "$PLATFORM"
    namespace "$SHOP"
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
allowedDestinationCidrs: [10.0.0.0/8]
api:
  service: {type: NodePort, nodePort: $NODE_PORT}
  # Every webhook of a test comes from one address.
  rateLimitPerMinute: 0
VALUES
}

# Nothing runs in it that the restricted Pod Security Standard refuses.
namespace() { # name
    kubectl create namespace "$1" --dry-run=client -o yaml | kubectl apply -f - >/dev/null
    kubectl label --overwrite namespace "$1" pod-security.kubernetes.io/enforce=restricted >/dev/null
}

# The definition may still belong to a release of another namespace.
install_release() { # helm-argument…
    helm_does upgrade --take-ownership --install "$RELEASE" "$ROOT_DIR/charts/grapnel" --namespace "$PLATFORM" --values "$STATE_DIR/values.yaml" \
        --wait --timeout "${PATIENCE}s" "$@"
}

helm_does() { # helm-argument…
    helm "$@" >>"$RUN_DIR/helm.log" 2>&1 || die "helm $1 failed: $(tail -n 1 "$RUN_DIR/helm.log")"
}

# Waits until a function says yes, or fails with what was waited for.
await() { # seconds what command…
    local limit=$1 what=$2
    shift 2
    wait_until "$limit" "$@" || die "waited $limit s in vain: $what"
}

ready() { # integration
    shop wait --for=condition=Ready --timeout "${PATIENCE}s" "integration/$1" >/dev/null || die "$1 did not become ready"
}

management() { # path
    curl -fsS --max-time 10 -H "x-internal-api-key: $(platform get secret grapnel-credentials \
        -o jsonpath='{.data.management-key}' | base64 -d)" "$API/$1"
}

# The worker Deployment of an Integration.
workers() { # integration
    printf 'deployment/grapnel-worker-%s\n' "$(shop get integration "$1" -o jsonpath='{.metadata.uid}')"
}
worker_count() { platform get "$(workers "$1")" -o jsonpath='{.status.readyReplicas}'; }

keep_logs() {
    local folder=$STATE_DIR/failure pod
    rm -rf "$folder"
    mkdir -p "$folder"
    kubectl get all,integrations,networkpolicies --all-namespaces -o wide >"$folder/objects.txt" 2>&1
    kubectl get integrations --all-namespaces -o yaml >"$folder/integrations.yaml" 2>&1
    kubectl get events --all-namespaces --sort-by .lastTimestamp >"$folder/events.txt" 2>&1
    for pod in $(kubectl get pods --all-namespaces -o jsonpath='{range .items[*]}{.metadata.namespace}/{.metadata.name}{"\n"}{end}'); do
        kubectl --namespace "${pod%/*}" logs "${pod#*/}" --all-containers --prefix >"$folder/${pod/\//.}.log" 2>&1
        kubectl --namespace "${pod%/*}" logs "${pod#*/}" --all-containers --previous >"$folder/${pod/\//.}.before.log" 2>/dev/null ||
            rm -f "$folder/${pod/\//.}.before.log"
    done
    cp "$RUN_DIR"/*.log "$RUN_DIR"/*.json "$folder/" 2>/dev/null
    say "logs are kept in $folder"
}

take_down() {
    stop_process probe KILL 10 || true
    cluster down || true
    services down || true
    # What failed is worth a look.
    find "$STATE_DIR" -mindepth 1 -maxdepth 1 ! -name failure -exec rm -rf {} +
    rmdir "$STATE_DIR" 2>/dev/null || true
}
