# shellcheck shell=bash
# One node for the private cluster: containerd, kubelet, kube-proxy and CoreDNS. Sourced by cluster.
#
# The node has its own network namespace, connected to the host by a virtual cable, so that its iptables rules, bridge and
# ports do not affect those of the host. Processes enter it with nsenter, since `ip netns exec` would hide the cgroup mounts.
# The control plane runs on the host. Pods reach the host at its end of the cable, where the datastores of a test may listen.
#
# The bridge plugin does not enforce NetworkPolicies.

readonly NODE_NAME=grapnel-node
readonly POD_RANGE=10.244.0.0/16
readonly SANDBOX_IMAGE=grapnel.local/pause:1
readonly KUBELET_PORT=10250

# --- the network -------------------------------------------------------------------------------------------------------

# Chooses two addresses and the names of a network namespace and a cable that are free on this machine.
choose_network() {
    local number taken
    taken=$(ip -4 -o addr)
    for ((number = 1; number < 255; number++)); do
        [[ $taken != *" 10.99.$number."* ]] && break
    done
    HOST_ADDRESS=10.99.$number.1 NODE_ADDRESS=10.99.$number.2 NETNS=grapnel-$number
    network_up
}

network_up() {
    [[ ! -e /run/netns/$NETNS ]] || return 0
    local cable=${NETNS/grapnel-/grapnel}
    ip netns add "$NETNS"
    ip link add "$cable" type veth peer name uplink netns "$NETNS"
    ip addr add "$HOST_ADDRESS/30" dev "$cable"
    ip link set "$cable" up
    in_node ip link set lo up
    in_node ip addr add "$NODE_ADDRESS/30" dev uplink
    in_node ip link set uplink up
    in_node ip route add default via "$HOST_ADDRESS"
    in_node sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1
}

# Deleting the namespace deletes the cable too.
network_down() {
    [[ ! -e /run/netns/$NETNS ]] || ip netns delete "$NETNS"
}

in_node() { nsenter --net="/run/netns/$NETNS" "$@"; }
launch_in_node() { # name command…
    local name=$1
    shift
    launch "$name" root nsenter --net="/run/netns/$NETNS" "$@"
}

create_node_certificates() {
    new_certificate client scheduler /CN=system:kube-scheduler
    new_certificate client kubelet "/O=system:nodes/CN=system:node:$NODE_NAME"
    new_certificate client proxy /CN=system:kube-proxy
    # It reads Services and EndpointSlices; a role of its own would be one more object in the cluster.
    new_certificate client dns /O=system:masters/CN=dns
    new_certificate server kubelet-server "/O=system:nodes/CN=system:node:$NODE_NAME"
}

create_node_settings() {
    local name
    for name in scheduler kubelet proxy dns; do
        write_kubeconfig "$name" "$STATE_DIR/$name.kubeconfig"
    done
    mkdir -p "$STATE_DIR/cni"
    containerd_settings >"$STATE_DIR/containerd.toml"
    cni_settings >"$STATE_DIR/cni/10-bridge.conflist"
    kubelet_settings >"$STATE_DIR/kubelet.yaml"
    proxy_settings >"$STATE_DIR/proxy.yaml"
    dns_settings >"$STATE_DIR/Corefile"
}

# --- containerd --------------------------------------------------------------------------------------------------------

containerd_start() {
    network_up
    launch_in_node containerd containerd --config "$STATE_DIR/containerd.toml"
    wait_for_service containerd 30 containerd_answers && ensure_sandbox_image
}

containerd_answers() { containers version; }
containers() { ctr --address "$STATE_DIR/containerd.sock" --namespace k8s.io "$@"; }

# Containers keep running without it; `down` ends their shims.
containerd_stop() { stop_service_only containerd; }

containerd_settings() {
    cat <<TOML
version = 2
root = "$STATE_DIR/containerd"
state = "$STATE_DIR/containerd-state"
oom_score = 0
[grpc]
  address = "$STATE_DIR/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$SANDBOX_IMAGE"
  # runc cannot lower it without CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$STATE_DIR/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
TOML
}

cni_settings() {
    cat <<JSON
{"cniVersion": "0.4.0", "name": "grapnel", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$STATE_DIR/cni-data", "ranges": [[{"subnet": "$POD_RANGE"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}}]}
JSON
}

# Builds the image that holds the namespaces of a pod, which is usually pulled from a registry.
ensure_sandbox_image() {
    [[ -z $(containers images list --quiet "name==$SANDBOX_IMAGE") ]] || return 0
    local work=$STATE_DIR/pause
    rm -rf "$work"
    mkdir -p "$work/root"
    cc -static -O2 -o "$work/root/pause" "$ROOT_DIR/hack/cluster/pause.c"
    oci_image "$work/image" "$work/pause.tar" "$SANDBOX_IMAGE" 0 '{"Entrypoint": ["/pause"], "User": "65535:65535"}' "$work/root"
    load_images "$work/pause.tar"
    rm -rf "$work"
}

# Imports image archives. Pods find the images if their imagePullPolicy is not Always.
load_images() { # archive…
    local archive
    for archive in "$@"; do
        containers images import "$archive" >>"$RUN_DIR/images.log" 2>&1 ||
            { tail -n 3 "$RUN_DIR/images.log" >&2 && die "$archive cannot be loaded"; }
    done
}

# --- kubelet, scheduler, kube-proxy, CoreDNS ---------------------------------------------------------------------------

kubelet_start() {
    create_cgroups
    launch_in_node kubelet "$KUBELET" --config "$STATE_DIR/kubelet.yaml" --kubeconfig "$STATE_DIR/kubelet.kubeconfig" \
        --root-dir "$STATE_DIR/kubelet" --node-ip "$NODE_ADDRESS" --hostname-override "$NODE_NAME"
    wait_for_service kubelet 90 kubelet_answers
}

kubelet_answers() { [[ $(get admin "https://$APISERVER_ADDRESS:$APISERVER_PORT/api/v1/nodes/$NODE_NAME" | jq -r \
    '.status.conditions[] | select(.type == "Ready") | .status') == True ]]; }
kubelet_stop() { stop_service_only kubelet; }

kubelet_settings() {
    cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_ADDRESS
port: $KUBELET_PORT
healthzBindAddress: $NODE_ADDRESS
authentication:
  anonymous: {enabled: false}
  x509: {clientCAFile: $PKI_DIR/authority.crt}
authorization: {mode: Webhook}
tlsCertFile: $PKI_DIR/kubelet-server.crt
tlsPrivateKeyFile: $PKI_DIR/kubelet-server.key
containerRuntimeEndpoint: unix://$STATE_DIR/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$NETNS
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
clusterDNS: [$NODE_ADDRESS]
clusterDomain: cluster.local
resolvConf: ""
podLogsDir: $STATE_DIR/pod-logs
# A full disk does not evict pods or remove images.
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
YAML
}

scheduler_start() {
    launch scheduler "$(id -un)" "$KUBE_SCHEDULER" --kubeconfig "$STATE_DIR/scheduler.kubeconfig" --leader-elect=false \
        --authentication-kubeconfig "$STATE_DIR/scheduler.kubeconfig" \
        --authorization-kubeconfig "$STATE_DIR/scheduler.kubeconfig" --authentication-tolerate-lookup-failure \
        --bind-address 127.0.0.1 --secure-port "$SCHEDULER_PORT" \
        --tls-cert-file "$PKI_DIR/apiserver.crt" --tls-private-key-file "$PKI_DIR/apiserver.key"
    wait_for_service scheduler 60 scheduler_answers
}
scheduler_answers() { get admin "https://127.0.0.1:$SCHEDULER_PORT/healthz"; }
scheduler_stop() { stop_process scheduler TERM 20; }

proxy_start() {
    launch_in_node proxy "$KUBE_PROXY" --config "$STATE_DIR/proxy.yaml"
    wait_for_service proxy 60 proxy_answers
}
proxy_answers() { curl -fsS --max-time 5 "http://$NODE_ADDRESS:10256/livez"; }
proxy_stop() { stop_process proxy TERM 20; }

proxy_settings() {
    cat <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: $NODE_ADDRESS
healthzBindAddress: $NODE_ADDRESS:10256
hostnameOverride: $NODE_NAME
clientConnection: {kubeconfig: $STATE_DIR/proxy.kubeconfig}
clusterCIDR: $POD_RANGE
mode: iptables
# The limits are those of the machine.
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {minSyncPeriod: 100ms}
YAML
}

dns_start() {
    launch_in_node dns "$COREDNS" -conf "$STATE_DIR/Corefile"
    wait_for_service dns 60 dns_answers
}
dns_answers() { curl -fsS --max-time 5 "http://$NODE_ADDRESS:8181/ready"; }
dns_stop() { stop_process dns TERM 20; }

dns_settings() {
    cat <<COREFILE
.:53 {
    bind $NODE_ADDRESS
    errors
    ready $NODE_ADDRESS:8181
    kubernetes cluster.local {
        kubeconfig $STATE_DIR/dns.kubeconfig
        ttl 1
    }
}
COREFILE
}

# --- taking it down ----------------------------------------------------------------------------------------------------

# Stops only the process itself: the containers that it has started belong to the node and keep running.
stop_service_only() { # name
    local pid
    pid=$(running_pid "$1") || return 0
    kill -TERM "$pid"
    wait_until 20 is_gone "$pid" || kill -KILL "$pid"
    rm -f "$RUN_DIR/$1.pid"
}

# Ends the containers of this node and no others: their shims have the path of this node's containerd in their arguments.
node_down() {
    local file pid member mount
    for file in /proc/[0-9]*/cmdline; do
        [[ $(tr '\0' ' ' 2>/dev/null <"$file") == *containerd-shim*" -address $STATE_DIR/containerd.sock "* ]] || continue
        pid=${file#/proc/} pid=${pid%/cmdline}
        for member in $(process_tree "$pid"); do
            kill -KILL "$member" 2>/dev/null || true
        done
    done
    # Inner mounts first.
    while read -r mount; do
        umount --lazy "$mount" 2>/dev/null || true
    done < <(cut -d ' ' -f 2 /proc/mounts | grep -F "$STATE_DIR/" | sort -r)
    network_down
    remove_cgroups
}

# Creates a root for this kubelet: it removes the groups of unknown pods, so two kubelets must not share a root.
create_cgroups() {
    local hierarchy file
    # cgroups v2 has one hierarchy, v1 has a directory for each.
    for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
        [[ -e $hierarchy/cgroup.procs && ! -L $hierarchy ]] || continue
        mkdir -p "$hierarchy/$NETNS"
        for file in cpuset.cpus cpuset.mems; do
            [[ ! -e $hierarchy/cgroup.clone_children || ! -e $hierarchy/$file ]] ||
                cat "$hierarchy/$file" >"$hierarchy/$NETNS/$file"
        done
    done
}

remove_cgroups() {
    local root
    for root in /sys/fs/cgroup/"$NETNS" /sys/fs/cgroup/*/"$NETNS"; do
        [[ ! -d $root ]] || find "$root" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
}
