# shellcheck shell=bash
# The case `bundled` of check-node: what someone gets who only tries it. Sourced after node_upgrade.sh.
#
# The chart brings its own datastores, as pods; their data outlives them and the release. And Helm is the older one here.

case_bundled() {
    local started before all_ready values
    from_nothing
    write_bundled_values >"$STATE_DIR/bundled-values.yaml"
    cluster build helm3
    # shellcheck disable=SC2034 # by `helm` and `sql`
    HELM=$(cluster path helm3) DATABASE_POD=grapnel-postgres-0
    # The definition may still be there, and belongs to the release of that time.
    values=(--namespace "$PLATFORM" --take-ownership --values "$STATE_DIR/bundled-values.yaml" --wait --timeout 240s)
    started=$(now_ms)
    helm_does install "$RELEASE" "$ROOT_DIR/charts/grapnel" "${values[@]}"
    all_ready="all ready in $(seconds $(($(now_ms) - started))) with Helm $(helm version --template '{{.Version}}')"
    helm_does test "$RELEASE" --namespace "$PLATFORM" --timeout "${PATIENCE}s"
    before=$(sealing_key)
    start_prober
    disturb "helm upgrade" helm_does upgrade "$RELEASE" "$ROOT_DIR/charts/grapnel" "${values[@]}"
    [[ $(sealing_key) == "$before" ]] || die "an upgrade makes new credentials"
    disturb "RabbitMQ's pod deleted" delete_datastore rabbitmq
    disturb "Redis' pod deleted" delete_datastore redis
    disturb "PostgreSQL's pod deleted" delete_datastore postgres
    end_prober
    RESULT="$all_ready; $RESULT"
    helm_does uninstall "$RELEASE" --namespace "$PLATFORM" --wait --timeout 160s
    helm_does install "$RELEASE" "$ROOT_DIR/charts/grapnel" "${values[@]}"
    [[ $(sealing_key) == "$before" ]] || die "an installation over old data has another sealing key"
    helm_does test "$RELEASE" --namespace "$PLATFORM" --timeout "${PATIENCE}s"
    helm_does uninstall "$RELEASE" --namespace "$PLATFORM" --wait --timeout 160s
    kubectl delete --timeout 90s namespace "$SHOP" "$PLATFORM" >/dev/null || die "a namespace cannot be deleted"
}

# One controller for all of the cluster, not two of them; and new data for new credentials.
from_nothing() {
    helm_does uninstall "$RELEASE" --namespace "$PLATFORM" --ignore-not-found --wait --timeout 160s
    kubectl delete --timeout 90s --ignore-not-found namespace "$SHOP" "$PLATFORM" >/dev/null
    kubectl delete --timeout 60s --ignore-not-found persistentvolume postgres rabbitmq >/dev/null
    rm -rf "$STATE_DIR/volumes"
    namespace "$PLATFORM"
    namespace "$SHOP"
    cluster load "$(datastore_image)"
    create_volumes "$PLATFORM"
}

write_bundled_values() {
    common_values
    cat <<VALUES
bundled:
  postgres: {image: "$REPOSITORY/datastores:1"}
  redis: {image: "$REPOSITORY/datastores:1"}
  rabbitmq: {image: "$REPOSITORY/datastores:1"}
VALUES
}

delete_datastore() { # name
    platform delete pod --wait --selector "app.kubernetes.io/component=$1"
    platform rollout status "statefulset/grapnel-$1" --timeout "${PATIENCE}s"
}

sealing_key() { platform get secret grapnel-credentials -o jsonpath='{.data.sealing-keys}'; }
