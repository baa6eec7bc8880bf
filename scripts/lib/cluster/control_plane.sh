# shellcheck shell=bash
# A private etcd, kube-apiserver and kube-controller-manager. Sourced by cluster.
#
# They listen on loopback, except for the API server of a cluster with a node: it listens on the host's end of the virtual
# cable to the node. Without a node, a Deployment gets its ReplicaSet and Pods, but nothing runs them.

# --- etcd --------------------------------------------------------------------------------------------------------------

etcd_start() {
    local tls=$PKI_DIR/etcd
    # A cluster for tests does not have to survive a power cut, and on a shared disk it would spend its time in fsync.
    launch etcd "$(id -un)" etcd --name grapnel --data-dir "$STATE_DIR/etcd" --unsafe-no-fsync --logger zap \
        --listen-client-urls "https://127.0.0.1:$ETCD_PORT" --advertise-client-urls "https://127.0.0.1:$ETCD_PORT" \
        --cert-file "$tls.crt" --key-file "$tls.key" --client-cert-auth --trusted-ca-file "$PKI_DIR/authority.crt" \
        --listen-peer-urls "https://127.0.0.1:$ETCD_PEER_PORT" \
        --initial-advertise-peer-urls "https://127.0.0.1:$ETCD_PEER_PORT" \
        --initial-cluster "grapnel=https://127.0.0.1:$ETCD_PEER_PORT" \
        --peer-cert-file "$tls.crt" --peer-key-file "$tls.key" --peer-client-cert-auth \
        --peer-trusted-ca-file "$PKI_DIR/authority.crt"
    wait_for_service etcd 60 etcd_answers
}

etcd_answers() { get etcd-client "https://127.0.0.1:$ETCD_PORT/health"; }
etcd_stop() { stop_process etcd TERM 20; }

# --- kube-apiserver ----------------------------------------------------------------------------------------------------

apiserver_start() {
    local flags=()
    if $AUDIT_LOG; then
        audit_policy >"$STATE_DIR/audit-policy.yaml"
        # Entries are written before the response is sent, into one file, so that a test can count them.
        flags+=(--audit-policy-file "$STATE_DIR/audit-policy.yaml" --audit-log-path "$AUDIT_LOG_FILE"
            --audit-log-mode blocking --audit-log-maxsize 10000)
    fi
    if $NODE; then
        # Kubelets are reached by their address, since no DNS has their names.
        flags+=(--advertise-address "$APISERVER_ADDRESS" --kubelet-preferred-address-types InternalIP
            --kubelet-certificate-authority "$PKI_DIR/authority.crt"
            --kubelet-client-certificate "$PKI_DIR/admin.crt" --kubelet-client-key "$PKI_DIR/admin.key")
    else
        # A loopback address cannot be the endpoint of the Service `kubernetes`, so none is published.
        flags+=(--advertise-address 127.0.0.1 --endpoint-reconciler-type none)
    fi
    launch apiserver "$(id -un)" "$KUBE_APISERVER" \
        --bind-address "$APISERVER_ADDRESS" --secure-port "$APISERVER_PORT" \
        --tls-cert-file "$PKI_DIR/apiserver.crt" --tls-private-key-file "$PKI_DIR/apiserver.key" \
        --client-ca-file "$PKI_DIR/authority.crt" \
        --etcd-servers "https://127.0.0.1:$ETCD_PORT" --etcd-cafile "$PKI_DIR/authority.crt" \
        --etcd-certfile "$PKI_DIR/etcd-client.crt" --etcd-keyfile "$PKI_DIR/etcd-client.key" \
        --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
        --service-account-issuer https://kubernetes.default.svc.cluster.local \
        --service-account-key-file "$PKI_DIR/service-accounts.pub" \
        --service-account-signing-key-file "$PKI_DIR/service-accounts.key" \
        --service-cluster-ip-range "$SERVICE_RANGE" --allow-privileged \
        --shutdown-watch-termination-grace-period 1s "${flags[@]}"
    wait_for_service apiserver 120 apiserver_answers
}

apiserver_answers() { get admin "https://$APISERVER_ADDRESS:$APISERVER_PORT/readyz"; }
# Requests in progress are completed. Without --shutdown-watch-termination-grace-period, open watches would take a minute.
apiserver_stop() { stop_process apiserver TERM 60; }

# Logs user, verb and object of every request, without contents.
audit_policy() {
    cat <<'POLICY'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
POLICY
}

# --- kube-controller-manager -------------------------------------------------------------------------------------------

controller-manager_start() {
    launch controller-manager "$(id -un)" "$KUBE_CONTROLLER_MANAGER" \
        --bind-address 127.0.0.1 --secure-port "$CONTROLLER_MANAGER_PORT" --leader-elect=false \
        --kubeconfig "$STATE_DIR/controller-manager.kubeconfig" \
        --authentication-kubeconfig "$STATE_DIR/controller-manager.kubeconfig" \
        --authorization-kubeconfig "$STATE_DIR/controller-manager.kubeconfig" \
        --client-ca-file "$PKI_DIR/authority.crt" --root-ca-file "$PKI_DIR/authority.crt" \
        --tls-cert-file "$PKI_DIR/apiserver.crt" --tls-private-key-file "$PKI_DIR/apiserver.key" \
        --service-account-private-key-file "$PKI_DIR/service-accounts.key" --use-service-account-credentials
    wait_for_service controller-manager 60 controller-manager_answers
}

# The controllers work when a namespace has its default ServiceAccount, without which no pod can be created.
controller-manager_answers() {
    get admin "https://127.0.0.1:$CONTROLLER_MANAGER_PORT/healthz" &&
        get admin "https://$APISERVER_ADDRESS:$APISERVER_PORT/api/v1/namespaces/default/serviceaccounts/default"
}
controller-manager_stop() { stop_process controller-manager TERM 20; }

get() { # client url
    curl -fsS --max-time 5 --cacert "$PKI_DIR/authority.crt" --cert "$PKI_DIR/$1.crt" --key "$PKI_DIR/$1.key" "$2"
}
