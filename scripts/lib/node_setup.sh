# shellcheck shell=bash
# The node, datastores and images of check-node, and what its cases look with. Sourced after grapnel.sh.

readonly PLATFORM=grapnel SHOP=shop RELEASE=grapnel
readonly NODE_PORT=30080
readonly TAG=0.0.0-test
# The same contents under another name: what an upgrade goes to.
readonly NEXT_TAG=0.0.1-test
readonly REPOSITORY=grapnel.local
readonly RECEIVER_IMAGE=$REPOSITORY/receiver:1
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
    prepare_images
    API=http://$GRAPNEL_NODE_ADDRESS:$NODE_PORT/api/v1
    write_values >"$STATE_DIR/values.yaml"
    namespace "$PLATFORM"
    namespace "$SHOP"
}

prepare_images() {
    local tag
    if [[ -z $IMAGES ]]; then
        "$ROOT_DIR/scripts/images" --debug --out "$STATE_DIR/images" --tag "$TAG" --repository "$REPOSITORY"
        GRAPNEL=$ROOT_DIR/target/debug/grapnel
        cluster load "$STATE_DIR/images/grapnel.tar" "$STATE_DIR/images/grapnel-controller.tar"
        name_images "$REPOSITORY" "$TAG" "$NEXT_TAG"
    else
        cluster load "$IMAGES/grapnel.tar" "$IMAGES/grapnel-controller.tar"
        for tag in "$TAG" "$NEXT_TAG"; do
            name_images "$(archive_name "$IMAGES/grapnel.tar" repository)" "$(archive_name "$IMAGES/grapnel.tar" tag)" "$tag"
        done
        GRAPNEL=$STATE_DIR/grapnel
        program_of "$IMAGES/grapnel.tar" >"$GRAPNEL.part"
        chmod +x "$GRAPNEL.part"
        mv "$GRAPNEL.part" "$GRAPNEL"
    fi
    cluster load "$(receiver_image)"
}

# One more name for both images.
name_images() { # repository tag new-tag
    local name
    for name in grapnel grapnel-controller; do
        ctr --address "$STATE_DIR/cluster/containerd.sock" --namespace k8s.io \
            images tag --force "$1/$name:$2" "$REPOSITORY/$name:$3" >/dev/null
    done
}

archive_name() { # archive repository|tag
    local name
    name=$(tar -xOf "$1" ./index.json | jq -r '.manifests[0].annotations["io.containerd.image.name"]')
    if [[ $2 == tag ]]; then printf '%s\n' "${name##*:}"; else name=${name%:*} && printf '%s\n' "${name%/*}"; fi
}

# The program in the last layer of an image.
program_of() { # archive
    local manifest layer
    manifest=$(tar -xOf "$1" ./index.json | jq -r '.manifests[0].digest | sub(":"; "/")')
    layer=$(tar -xOf "$1" "./blobs/$manifest" | jq -r '.layers[-1].digest | sub(":"; "/")')
    tar -xOf "$1" "./blobs/$layer" | tar -xzO ./usr/local/bin/grapnel
}

# A receiver of webhooks that prints what it gets: a shell script under busybox, so that it shares nothing with what it looks at.
receiver_image() {
    local root=$STATE_DIR/receiver/root archive=$STATE_DIR/receiver/receiver.tar
    mkdir -p "$root/bin"
    cp /bin/busybox "$root/bin/busybox"
    ln -sf busybox "$root/bin/sh"
    cat >"$root/bin/receive" <<'RECEIVE'
#!/bin/sh
length=0
while read -r line; do
    line=$(printf %s "$line" | busybox tr -d '\r')
    [ -n "$line" ] || break
    case $(printf %s "$line" | busybox tr A-Z a-z) in
        content-length:*) length=${line##*: } ;;
        webhook-id:* | webhook-signature:*) printf '%s ' "$line" >/proc/1/fd/1 ;;
    esac
done
busybox head -c "$length" >/proc/1/fd/1
echo >/proc/1/fd/1
printf 'HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n'
RECEIVE
    chmod 755 "$root/bin/receive"
    rm -rf "$STATE_DIR/receiver/work"
    oci_image "$STATE_DIR/receiver/work" "$archive" "$RECEIVER_IMAGE" 0 \
        '{"Entrypoint": ["/bin/busybox", "nc", "-ll", "-p", "8080", "-e", "/bin/receive"], "Env": ["PATH=/bin"], "User": "65532:65532"}' "$root"
    rm -rf "$STATE_DIR/receiver/work"
    printf '%s\n' "$archive"
}

write_values() {
    cat <<VALUES
fullnameOverride: grapnel
images:
  runtime: {repository: $REPOSITORY/grapnel, tag: "$TAG"}
  controller: {repository: $REPOSITORY/grapnel-controller, tag: "$TAG"}
external:
  postgres: {url: "$DATABASE_URL"}
  redis: {url: "$REDIS_URL"}
  rabbitmq: {url: "$RABBITMQ_URL", managementUrl: "$RABBITMQ_MANAGEMENT_URL"}
allowedDestinationCidrs: [10.0.0.0/8]
publicUrl: http://$GRAPNEL_NODE_ADDRESS:$NODE_PORT
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
    helm upgrade --take-ownership --install "$RELEASE" "$ROOT_DIR/charts/grapnel" --namespace "$PLATFORM" --values "$STATE_DIR/values.yaml" \
        --wait --timeout "${PATIENCE}s" "$@" >>"$RUN_DIR/helm.log" 2>&1 || die "helm did not install: $(tail -n 1 "$RUN_DIR/helm.log")"
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
