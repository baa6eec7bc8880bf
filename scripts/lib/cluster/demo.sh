#!/usr/bin/env bash
# Shows the steps of a user on a whole cluster on this machine: helm install, an Integration, a webhook, workers that come and
# go.
#
# Usage: scripts/cluster demo [OPTION…]
#
#   --state DIR     keep everything there (default: .state/cluster-demo)
#   --images DIR    take grapnel.tar and grapnel-controller.tar from there; without this option, debug images are built
#   --keep          leave everything running until Ctrl-C
#   --help
#
# Needs root.

# shellcheck source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
# shellcheck source=../arguments.sh
source "$ROOT_DIR/scripts/lib/arguments.sh"
# shellcheck source=../cleanup.sh
source "$ROOT_DIR/scripts/lib/cleanup.sh"
# shellcheck source=../packages.sh
source "$ROOT_DIR/scripts/lib/packages.sh"
# shellcheck source=../processes.sh
source "$ROOT_DIR/scripts/lib/processes.sh"
# shellcheck source=../rust.sh
source "$ROOT_DIR/scripts/lib/rust.sh"
# shellcheck source=../services.sh
source "$ROOT_DIR/scripts/lib/services.sh"
# shellcheck source=../oci.sh
source "$ROOT_DIR/scripts/lib/oci.sh"
# shellcheck source=../grapnel.sh
source "$ROOT_DIR/scripts/lib/grapnel.sh"
# shellcheck source=../node/images.sh
source "$ROOT_DIR/scripts/lib/node/images.sh"
# shellcheck source=../node/setup.sh
source "$ROOT_DIR/scripts/lib/node/setup.sh"

readonly PLATFORM=grapnel SHOP=shop

main() {
    parse_arguments "$@"
    at_exit finish
    [[ -n $IMAGES ]] || build_images
    bring_up
    # `helm` and `kubectl` below are functions that run the pinned releases on this cluster.
    the_installation
    an_integration
    a_webhook
    a_burst
    the_end
}

parse_arguments() {
    option_value --state STATE "a directory" "$ROOT_DIR/.state/cluster-demo"
    option_value --images IMAGES "a directory"
    option_flag --keep KEEP
    read_arguments "$@"
    [[ -z $IMAGES ]] || IMAGES=$(realpath -- "$IMAGES")
    use_state "$STATE"
}

# --- the demo ----------------------------------------------------------------------------------------------------------

the_installation() {
    create_namespace "$PLATFORM"
    create_namespace "$SHOP"
    text "A cluster of one node is up, with PostgreSQL, RabbitMQ and Redis outside it; values.yaml has their addresses."
    type_in "helm install grapnel $ROOT_DIR/charts/grapnel -n $PLATFORM -f $STATE_DIR/values.yaml --wait >/dev/null"
    type_in "kubectl -n $PLATFORM get pods"
    start_receiver
    text "In the namespace $SHOP, the Deployment receiver prints every request."
}

an_integration() {
    apply_acme orders acme "http://receiver.$SHOP.svc/"
    text "An Integration delivers Acme's webhooks to that receiver."
    type_in "kubectl -n $SHOP get integration orders -o jsonpath='{.spec.destinations}' | jq -c ."
    type_in "kubectl -n $SHOP wait --for=condition=Ready integration/orders --timeout 60s"
    type_in "kubectl -n $SHOP get integrations"
}

a_webhook() {
    body='{"eventId":"evt-1","eventType":"order.created","occurredAt":"2026-01-02T03:04:05Z","data":{"id":"order-42"}}'
    text "Acme posts to the NodePort, signed with the secret of the Integration. There is no worker yet; this starts one."
    type_in "signature=\$(printf %s '$body' | openssl dgst -sha256 -hmac secret-of-acme -r | cut -d ' ' -f 1)"
    type_in "curl -s $API/webhooks/acme -H 'content-type: application/json' -H \"x-acme-signature: \$signature\" -d '$body' | jq -c .data"
    wait_until 60 order_arrived || die "the delivery did not arrive within 60 s"
    type_in "kubectl -n $SHOP logs deployment/receiver"
}
order_arrived() { shop logs deployment/receiver | grep order-42; }

a_burst() {
    text "600 webhooks, for a destination that takes 0.4 s for each:"
    start_burst
    local count before=''
    while is_running probe; do
        count=$(ready_workers)
        [[ $count == "$before" ]] || text "workers: ${count:-0}"
        before=$count
        sleep 0.3
    done
    [[ $(ledger .ok) == true ]] || die "the ledger does not add up: $(ledger -c .faults)"
    text "delivered: $(ledger .deliveries.delivered), lost: $(ledger .deliveries.lost)"
    wait_until 90 no_workers || die "there are still workers after 90 s"
    text "workers: 0"
    type_in "kubectl -n $SHOP get events --field-selector involvedObject.name=burst -o custom-columns=REASON:.reason,MESSAGE:.message"
}

the_end() {
    $KEEP || return 0
    text "Everything keeps running until Ctrl-C. In another terminal:  export KUBECONFIG=$STATE_DIR/cluster/kubeconfig"
    sleep infinity
}

finish() { # exit-code
    (($1 == 0)) || was_interrupted "$1" || keep_logs || true
    [[ ! -d $RUN_DIR ]] || stop_process probe KILL 10
    take_down
}

text() { printf '\n%s%s%s\n' "$BOLD" "$1" "$RESET"; }
# Shows a command line and runs exactly it.
type_in() {
    printf '%s$ %s%s\n' "$CYAN" "${1//$ROOT_DIR\//}" "$RESET"
    eval "$1"
}

# --- behind the scenes ---------------------------------------------------------------------------------------------------

platform() { kubectl --namespace "$PLATFORM" "$@"; }
shop() { kubectl --namespace "$SHOP" "$@"; }

# Nothing may run in it that the restricted Pod Security Standard refuses.
create_namespace() { # name
    kubectl create namespace "$1" >/dev/null
    kubectl label namespace "$1" pod-security.kubernetes.io/enforce=restricted >/dev/null
}

start_receiver() {
    shop apply -f - >/dev/null <<YAML
apiVersion: apps/v1
kind: Deployment
metadata: {name: receiver}
spec:
  selector: {matchLabels: {app: receiver}}
  template:
    metadata: {labels: {app: receiver}}
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      terminationGracePeriodSeconds: 1
      containers:
      - name: receiver
        image: $RECEIVER_IMAGE
        ports: [{containerPort: 8080}]
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
---
apiVersion: v1
kind: Service
metadata: {name: receiver}
spec: {selector: {app: receiver}, ports: [{port: 80, targetPort: 8080}]}
YAML
    shop rollout status --timeout 120s deployment/receiver >/dev/null
}

# Applies an Integration of Acme whose secret is `secret-of-ROUTE`.
apply_acme() { # name route destination-url
    shop apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Secret
metadata: {name: $1}
stringData: {secret: secret-of-$2, signing: whsec_ZXhhbXBsZS1zaWduaW5nLXNlY3JldC1vZi1hY21l}
---
apiVersion: grapnel.dev/v1alpha1
kind: Integration
metadata: {name: $1}
spec:
  provider: acme
  route: $2
  ingress: {rateLimitPerMinute: 0}
  verification: {secretRef: {name: $1}}
  destinations:
  - name: receiver
    url: $3
    timeoutSeconds: 5
    maxConcurrency: 4
    retry: {maxAttempts: 20, backoff: Linear, initialDelaySeconds: 1, maxDelaySeconds: 3}
    signingSecretRef: {name: $1, key: signing}
  workers: {scaling: {minReplicas: 0, maxReplicas: 4, targetBacklogPerReplica: 50, cooldownSeconds: 10, stabilizationWindowSeconds: 10}}
  drainTimeoutSeconds: 20
YAML
}

# Starts the load generator outside the cluster, with an Integration that delivers back to it.
start_burst() {
    local port
    port=$(free_ports 1)
    apply_acme burst burst "http://$GRAPNEL_HOST_ADDRESS:$port/"
    shop wait --for=condition=Ready --timeout 120s integration/burst >/dev/null
    WORKERS=deployment/grapnel-worker-$(shop get integration burst -o jsonpath='{.metadata.uid}')
    printf secret-of-burst >"$RUN_DIR/probe-secret"
    launch probe "$(id -un)" "$LOADTEST" run --target "$API/webhooks/burst" --provider acme \
        --secret-file "$RUN_DIR/probe-secret" --sink-addr "$GRAPNEL_HOST_ADDRESS:$port" --json \
        --events 600 --concurrency 32 --sink-delay-ms 400 --settle-seconds 120
}

# A part of the load generator's ledger, which comes last in its log.
ledger() { sed -n '/^{/,$p' "$RUN_DIR/probe.log" | jq -r "$@"; } # jq-argument…

ready_workers() { platform get "$WORKERS" -o jsonpath='{.status.readyReplicas}'; }
no_workers() { [[ $(platform get "$WORKERS" -o jsonpath='{.spec.replicas}') == 0 && -z $(ready_workers) ]]; }

main "$@"
