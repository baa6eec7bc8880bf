# shellcheck shell=bash
# The cases of check-node, in the order in which they run. Each leaves the installation as it found it, but for `uninstall`.

# From nothing to everything ready, and to the first delivery.
case_install() {
    local started
    started=$(now_ms)
    install_release
    RESULT="all ready in $(seconds $(($(now_ms) - started)))"
    start_receiver
    acme orders acme "http://receiver.$SHOP.svc/" ''
    ready orders
    local id
    # A run that goes on with the installation of another has events of its own.
    FIRST=first-$(now_ms)
    id=$(post acme "$FIRST")
    await 60 "the first delivery" received "$id"
    RESULT+="; first delivery $(seconds $(($(now_ms) - started))) after helm install began"
}

# `helm test` sends signed webhooks through all of it, and leaves nothing behind.
case_test() {
    helm_does test "$RELEASE" --namespace "$PLATFORM" --timeout "${PATIENCE}s"
    await 60 "what the test left behind to go" nothing_of_the_test
}
nothing_of_the_test() { [[ -z $(platform get pods,secrets,services,integrations --selector app.kubernetes.io/component=test -o name) ]]; }

# What the repository shows is what works. Their routes are this cluster's own, but for the destination.
case_examples() {
    local example name
    for example in "$ROOT_DIR"/examples/*.yaml; do
        # One Integration has one route, and `orders` of the first case has that of the example.
        sed "s|route: acme |route: acme-example |" "$example" | shop apply -f - >/dev/null
    done
    for name in $(shop get integrations -o jsonpath='{.items[*].metadata.name}'); do
        ready "$name"
    done
    RESULT=$(shop get integrations --no-headers | wc -l)" Integrations ready"
    for example in "$ROOT_DIR"/examples/*.yaml; do
        shop delete --wait=false -f "$example" >/dev/null
    done
    await "$PATIENCE" "the examples to be removed" only_orders
}
only_orders() { [[ $(shop get integrations -o name) == integration.grapnel.dev/orders ]]; }

# The contract, from outside, through the NodePort.
case_webhook() {
    local id
    id=$(post acme "contract-$FIRST")
    [[ $(post acme "contract-$FIRST" 200) == "$id" ]] || die "a repeat has another id"
    post acme forged 401 wrong-secret >/dev/null
    post nowhere lost 404 >/dev/null
    await 60 "the delivery" received "$id"
    await 60 "the event to be processed" processed "$id"
    received_line "$id" | grep -q 'webhook-signature: v1,' || die "the delivery is not signed"
    (($(grep -c "webhook-id: $id" <<<"$(receiver_log)") == 1)) || die "more than one delivery"
}
processed() { [[ $(management "events/$1/status" | jq -r .data.status) == processed ]]; }

# Workers follow the backlog: none, several under a burst of slow deliveries, none.
case_scaling() {
    start_probe burst "$GRAPNEL_HOST_ADDRESS" --events 600 --concurrency 32 --sink-delay-ms 400 --settle-seconds 120
    local most=0 now
    while is_running probe; do
        now=$(worker_count burst) now=${now:-0}
        ((now <= most)) || most=$now
        sleep 0.2
    done
    ledger_is_clean
    ((most >= 2)) || die "a burst was worked off by $most workers"
    await 90 "the workers to go" no_workers burst
    RESULT="0 → $most → 0 workers, $(ledger .deliveries.delivered) delivered"
    remove burst
}
no_workers() { [[ $(platform get "$(workers "$1")" -o jsonpath='{.spec.replicas}') == 0 && -z $(worker_count "$1") ]]; }

# The same values again change nothing: no new generation of anything that was made by the chart.
case_unchanged() {
    install_release
    local before
    before=$(versions)
    install_release
    diff <(printf '%s\n' "$before") <(versions) >&2 || die "a second upgrade with the same values changes something"
    env -i PATH="$PATH" HOME="$RUN_DIR" "$HELM" template "$RELEASE" "$ROOT_DIR/charts/grapnel" --namespace "$PLATFORM" \
        --values "$STATE_DIR/values.yaml" >"$RUN_DIR/template.yaml" 2>>"$RUN_DIR/helm.log" || die "helm template needs a cluster"
    grep -q 'kind: Deployment' "$RUN_DIR/template.yaml" || die "helm template renders nothing"
}
versions() {
    platform get deployments,services,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets,networkpolicies,jobs,secrets \
        --selector app.kubernetes.io/managed-by=Helm -o json |
        jq -r '.items[] | "\(.kind) \(.metadata.name) \(.metadata.uid) \(.metadata.generation) \(.data // "" | tostring | @base64 | .[0:40])"' | sort
}

# Who may edit Integrations in one namespace has that, and nothing of the platform or of others.
case_tenant() {
    namespace other
    shop create serviceaccount tenant --dry-run=client -o yaml | kubectl apply -f - >/dev/null
    shop create rolebinding tenant --clusterrole edit --serviceaccount "$SHOP:tenant" --dry-run=client -o yaml | kubectl apply -f - >/dev/null
    may create integrations.grapnel.dev "$SHOP" || die "the role edit does not include Integrations"
    may patch integrations.grapnel.dev/scale "$SHOP" || die "the role edit does not include the scale of Integrations"
    local refused
    for refused in "create integrations.grapnel.dev other" "get secrets other" "get secrets $PLATFORM" "get pods/exec $PLATFORM" \
        "patch deployments.apps $PLATFORM" "patch integrations.grapnel.dev/status $SHOP"; do
        # shellcheck disable=SC2086 # three words
        ! may $refused || die "a tenant may $refused"
    done
    # A Secret of another namespace cannot be named, and nothing of a pod but its bounds can be chosen.
    local field
    for field in '{"verification": {"secretRef": {"name": "a", "namespace": "other"}}}' '{"workers": {"image": "evil"}}' \
        '{"workers": {"env": []}}' '{"workers": {"serviceAccountName": "default"}}'; do
        ! shop patch integration orders --type merge --dry-run=server --field-manager test -p "{\"spec\": $field}" -o json 2>/dev/null |
            jq -e --argjson field "$field" '.spec | contains($field)' >/dev/null || die "an Integration takes $field"
    done
    # The datastores answer on this address, and it is not among those that a destination may be at.
    install_release --set 'allowedDestinationCidrs={10.96.0.0/16,10.244.0.0/16}'
    acme reach reach "http://$GRAPNEL_HOST_ADDRESS:${RABBITMQ_MANAGEMENT_URL##*:}/" ''
    ready reach
    local id
    id=$(post reach inside)
    await 90 "a delivery that is not sent" not_sent "$id"
    install_release
    remove reach
    kubectl delete namespace other --wait=false >/dev/null
}
may() { # verb resource[/subresource] namespace
    local resource=$2 subresource=()
    # What stands behind a slash would be taken for a name.
    [[ $2 != */* ]] || { resource=${2%/*} && subresource=(--subresource "${2#*/}"); }
    [[ $(kubectl auth can-i "$1" "$resource" "${subresource[@]}" --namespace "$3" --as "system:serviceaccount:$SHOP:tenant" 2>/dev/null) == yes ]]
}
not_sent() { management "events/$1" | jq -e '.data.event.lastError // "" | test("not allowed|private|refused by|egress"; "i")' >/dev/null; }

# Every right that was given was used, and none was missing. The API server has kept a record since its start.
case_rights() {
    local used=$RUN_DIR/used.txt granted=$RUN_DIR/granted.txt
    jq -r --arg user "system:serviceaccount:$PLATFORM:grapnel-controller" 'select(.user.username == $user and .objectRef != null)
        | select(.annotations["authorization.k8s.io/decision"] == "forbid") | "\(.verb) \(.requestURI)"' \
        "$GRAPNEL_CLUSTER_AUDIT_LOG" | sort -u >"$RUN_DIR/forbidden.txt"
    [[ ! -s $RUN_DIR/forbidden.txt ]] || die "the controller was refused: $(head -n 5 "$RUN_DIR/forbidden.txt")"
    jq -r --arg user "system:serviceaccount:$PLATFORM:grapnel-controller" 'select(.user.username == $user and .objectRef != null)
        | .objectRef as $o | "\($o.apiGroup // "")/\([$o.resource, $o.subresource // empty] | join("/")) \(.verb)"' \
        "$GRAPNEL_CLUSTER_AUDIT_LOG" | sort -u >"$used"
    {
        kubectl get clusterrole "$PLATFORM-grapnel-controller" -o json
        platform get role grapnel-controller -o json
    } | jq -r '.rules[] | .apiGroups[] as $group | .resources[] as $resource | .verbs[] | "\($group)/\($resource) \(.)"' | sort -u >"$granted"
    [[ -s $used && -s $granted ]] || die "nothing was recorded"
    # An apply of what is not there yet needs create, and is recorded as a patch. A single Integration is read only where the cache lacks
    # one that has left something behind, and an Event is patched when it is told again: the controller's own tests see to those.
    comm -13 "$used" "$granted" |
        grep -vxE 'apps/deployments create|grapnel.dev/integrations get|events.k8s.io/events patch' >"$RUN_DIR/unused.txt" || true
    [[ ! -s $RUN_DIR/unused.txt ]] || die "rights that nothing has used: $(paste -sd , "$RUN_DIR/unused.txt")"
    RESULT="$(wc -l <"$granted") granted"
}

# In either order: objects first, or the release first. Nothing hangs, and nothing stays but the definition and what is worth keeping.
case_uninstall() {
    shop delete --timeout 60s integration --all >/dev/null || die "an Integration cannot be deleted"
    acme orders acme "http://receiver.$SHOP.svc/" ''
    ready orders
    post acme kept >/dev/null
    timeout 170 env KUBECONFIG="$STATE_DIR/cluster/kubeconfig" "$HELM" uninstall "$RELEASE" --namespace "$PLATFORM" --wait \
        --timeout 160s >>"$RUN_DIR/helm.log" 2>&1 || die "helm uninstall failed"
    await 90 "everything of the release to go" nothing_left
    kubectl get customresourcedefinition integrations.grapnel.dev >/dev/null || die "the definition went with the release"
    platform get secret grapnel-credentials >/dev/null || die "the sealing key went with the release"
    shop get integration orders >/dev/null || die "an Integration went with the release"
    # And back: the same data, the same keys.
    install_release
    ready orders
    post acme kept 200 >/dev/null
    # The release goes first, and the object after it, without anyone to clean up.
    timeout 170 env KUBECONFIG="$STATE_DIR/cluster/kubeconfig" "$HELM" uninstall "$RELEASE" --namespace "$PLATFORM" --wait \
        --timeout 160s >>"$RUN_DIR/helm.log" 2>&1 || die "the second helm uninstall failed"
    shop delete --timeout 30s integration --all >/dev/null || die "an Integration outlives its controller for ever"
    kubectl delete --timeout 60s namespace "$SHOP" "$PLATFORM" >/dev/null || die "a namespace cannot be deleted"
}
# The Lease is the controller's own, and says who wrote last to the one that comes after it.
nothing_left() {
    local left
    left=$(platform get all,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets,ingresses -o name |
        grep -vE '^(configmap/kube-root-ca.crt|serviceaccount/default|secret/grapnel-credentials)$')
    [[ -z $left ]] && [[ -z $(kubectl get clusterroles,clusterrolebindings --selector app.kubernetes.io/part-of=grapnel -o name) ]]
}

# --- what the cases use --------------------------------------------------------------------------------------------------

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
    shop rollout status --timeout "${PATIENCE}s" deployment/receiver >/dev/null
}
receiver_log() { shop logs deployment/receiver; }
received_line() { receiver_log | grep "webhook-id: $1"; }
received() { received_line "$1" >/dev/null; }

# An Integration of Acme with a secret that is its name.
acme() { # name route destination-url more-of-the-spec
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
  workers: {scaling: {minReplicas: ${4:-0}, maxReplicas: 4, targetBacklogPerReplica: 50, cooldownSeconds: 10, stabilizationWindowSeconds: 10}}
  drainTimeoutSeconds: 20
YAML
}

remove() { # integration
    shop delete --timeout 60s "integration/$1" >/dev/null || die "$1 cannot be deleted"
}

# Posts a webhook and prints the id of its event. Fails when the answer is another.
post() { # route event [status [secret]]
    local body signature answer status=${3:-202}
    body="{\"eventId\":\"$2\",\"eventType\":\"order.created\",\"occurredAt\":\"2026-01-02T03:04:05Z\",\"data\":{\"id\":\"$2\"}}"
    signature=$(printf %s "$body" | hmac_hex "${4:-secret-of-$1}")
    answer=$(curl -sS --max-time 10 -w '\n%{http_code}' -H 'content-type: application/json' -H "x-acme-signature: $signature" \
        --data-raw "$body" "$API/webhooks/$1")
    [[ ${answer##*$'\n'} == "$status" ]] || die "posting $2 to $1 gave $answer instead of $status"
    jq -r '.data.eventId // empty' <<<"${answer%$'\n'*}"
}

# Starts `grapnel probe` beside the node, with an Integration that delivers back to it.
start_probe() { # name address argument…
    local name=$1 address=$2 port
    shift 2
    port=$(free_ports 1)
    acme "$name" "$name" "http://$address:$port/" ''
    ready "$name"
    printf 'secret-of-%s' "$name" >"$RUN_DIR/probe-secret"
    : >"$RUN_DIR/probe.log"
    LEDGER=$RUN_DIR/ledger-$name.json
    launch probe "$(id -un)" "$GRAPNEL" probe --target "$API/webhooks/$name" --provider acme --secret-file "$RUN_DIR/probe-secret" \
        --sink-addr "$address:$port" --json "$@"
}

ledger() { sed -n '/^{/,$p' "$RUN_DIR/probe.log" | jq -r "$@"; }
ledger_is_clean() {
    cp "$RUN_DIR/probe.log" "$LEDGER"
    [[ $(ledger .ok) == true ]] || die "the ledger does not add up: $(ledger -c .faults)"
}
