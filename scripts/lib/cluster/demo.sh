#!/usr/bin/env bash
# Shows the way of a user, on a whole cluster of this machine: helm install, an Integration, a webhook, workers that come and go.
# Run by `scripts/cluster demo`, which says more; --state DIR and --keep are those of scripts/check-node.

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=packages.sh
source "$ROOT_DIR/scripts/lib/packages.sh"
# shellcheck source=processes.sh
source "$ROOT_DIR/scripts/lib/processes.sh"
# shellcheck source=oci.sh
source "$ROOT_DIR/scripts/lib/oci.sh"
# shellcheck source=grapnel.sh
source "$ROOT_DIR/scripts/lib/grapnel.sh"
# shellcheck source=node_images.sh
source "$ROOT_DIR/scripts/lib/node/images.sh"
# shellcheck source=node_setup.sh
source "$ROOT_DIR/scripts/lib/node/setup.sh"
# shellcheck source=node_cases.sh
source "$ROOT_DIR/scripts/lib/node/cases.sh"

main() {
    parse_arguments "$@"
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    [[ -n $IMAGES ]] || build_images
    prepare
    # `helm` and `kubectl` below are functions that run the pinned ones against this cluster.
    the_installation
    an_integration
    a_webhook
    a_burst
    the_end
}

parse_arguments() {
    local state=$ROOT_DIR/.state/cluster-demo
    IMAGES='' KEEP=false
    while (($# > 0)); do
        case $1 in
            --state) state=${2:?--state needs a directory} && shift ;;
            --images) IMAGES=$(realpath -- "${2:?--images needs a directory}") && shift ;;
            --keep) KEEP=true ;;
            *) usage_error "unknown argument '$1'" ;;
        esac
        shift
    done
    STATE_DIR=$(realpath -m "$state")
    RUN_DIR=$STATE_DIR/run
}

the_installation() {
    text "A cluster of one node is up, with PostgreSQL, RabbitMQ and Redis beside it; values.yaml says where they are."
    type_in "helm install grapnel $ROOT_DIR/charts/grapnel -n $PLATFORM -f $STATE_DIR/values.yaml --wait >/dev/null"
    type_in "kubectl -n $PLATFORM get pods"
    start_receiver
    text "In the namespace $SHOP the Deployment receiver prints what it is sent."
}

an_integration() {
    acme orders acme "http://receiver.$SHOP.svc/" ''
    text "An Integration: Acme's webhooks, to that receiver."
    type_in "kubectl -n $SHOP get integration orders -o jsonpath='{.spec.destinations}' | jq -c ."
    type_in "kubectl -n $SHOP wait --for=condition=Ready integration/orders --timeout 60s"
    type_in "kubectl -n $SHOP get integrations"
}

a_webhook() {
    body='{"eventId":"evt-1","eventType":"order.created","occurredAt":"2026-01-02T03:04:05Z","data":{"id":"order-42"}}'
    text "Acme posts to the NodePort, signed with the secret of the Integration. There is no worker yet; one comes."
    type_in "signature=\$(printf %s '$body' | openssl dgst -sha256 -hmac secret-of-acme -r | cut -d ' ' -f 1)"
    type_in "curl -s $API/webhooks/acme -H 'content-type: application/json' -H \"x-acme-signature: \$signature\" -d '$body' | jq -c .data"
    await 60 "the delivery" order_arrived
    type_in "kubectl -n $SHOP logs deployment/receiver"
}

order_arrived() { receiver_log | grep order-42; }

a_burst() {
    text "600 webhooks, for a destination that takes 0.4 s for each:"
    start_probe burst "$GRAPNEL_HOST_ADDRESS" --events 600 --concurrency 32 --sink-delay-ms 400 --settle-seconds 120
    local now before=''
    while is_running probe; do
        now=$(worker_count burst)
        [[ $now == "$before" ]] || text "workers: ${now:-0}"
        before=$now
        sleep 0.3
    done
    ledger_is_clean
    text "delivered: $(ledger .deliveries.delivered), lost: $(ledger .deliveries.lost)"
    await 90 "the workers to go" no_workers burst
    text "workers: 0"
    type_in "kubectl -n $SHOP get events --field-selector involvedObject.name=burst -o custom-columns=REASON:.reason,MESSAGE:.message"
}

the_end() {
    $KEEP || return 0
    text "Everything goes on until Ctrl-C. In another terminal:  export KUBECONFIG=$STATE_DIR/cluster/kubeconfig"
    sleep infinity
}

finish() {
    local code=$?
    trap '' INT TERM
    ((code == 0 || code == 130)) || keep_logs || true
    take_down
    exit "$code"
}

text() { printf '\n%s%s%s\n' "$BOLD" "$1" "$RESET"; }
# Shows a command line and runs exactly it.
type_in() {
    printf '%s$ %s%s\n' "$CYAN" "${1//$ROOT_DIR\//}" "$RESET"
    eval "$1"
}

main "$@"
