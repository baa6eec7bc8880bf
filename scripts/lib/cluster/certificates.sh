# shellcheck shell=bash
# Certificates and kubeconfigs of a private cluster, made with openssl in the state directory. Sourced by cluster.
#
# One authority signs for etcd and for the API server. Only the caller can read its key and all others.

# Usually the state directory is removed long before; a forgotten cluster keeps working.
readonly CERTIFICATE_DAYS=365

create_certificates() {
    mkdir -p "$PKI_DIR"
    (
        umask 077
        certificate_profiles >"$PKI_DIR/openssl.cnf"
        new_certificate authority authority /CN=grapnel-cluster
        new_certificate server etcd /CN=etcd
        new_certificate client etcd-client /CN=kube-apiserver
        new_certificate server apiserver /CN=kube-apiserver
        new_certificate client admin /O=system:masters/CN=grapnel-admin
        new_certificate client controller-manager /CN=system:kube-controller-manager
        ! $NODE || create_node_certificates
        new_key "$PKI_DIR/service-accounts.key"
        openssl pkey -in "$PKI_DIR/service-accounts.key" -pubout -out "$PKI_DIR/service-accounts.pub"
    ) >>"$RUN_DIR/certificates.log" 2>&1 || {
        tail -n 20 "$RUN_DIR/certificates.log" >&2
        die "openssl could not make the certificates"
    }
}

certificate_profiles() {
    cat <<PROFILES
[req]
distinguished_name = name
prompt = no
[name]
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = $(server_names)
[client]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
PROFILES
}

# Prints the names of the servers, on loopback and for pods.
server_names() {
    printf 'IP:127.0.0.1, IP:%s, DNS:localhost' "$KUBERNETES_SERVICE_IP"
    ! $NODE || printf ', IP:%s, IP:%s' "$APISERVER_ADDRESS" "$NODE_ADDRESS"
    printf ', DNS:%s' kubernetes kubernetes.default kubernetes.default.svc kubernetes.default.svc.cluster.local
}

new_certificate() { # profile name subject
    local signer=(-CA "$PKI_DIR/authority.crt" -CAkey "$PKI_DIR/authority.key")
    [[ $1 != authority ]] || signer=()
    new_key "$PKI_DIR/$2.key"
    openssl req -x509 -new -sha256 -config "$PKI_DIR/openssl.cnf" -extensions "$1" -days $CERTIFICATE_DAYS \
        "${signer[@]}" -key "$PKI_DIR/$2.key" -subj "$3" -out "$PKI_DIR/$2.crt"
}

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; } # file

# The file contains the keys as well, so that a copy of it works everywhere on this machine.
write_kubeconfig() { # certificate-name file
    (
        umask 077
        cat >"$2" <<KUBECONFIG
apiVersion: v1
kind: Config
clusters:
- name: grapnel
  cluster:
    server: https://$APISERVER_ADDRESS:$APISERVER_PORT
    certificate-authority-data: $(base64 -w 0 "$PKI_DIR/authority.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w 0 "$PKI_DIR/$1.crt")
    client-key-data: $(base64 -w 0 "$PKI_DIR/$1.key")
contexts:
- name: grapnel
  context: {cluster: grapnel, user: $1}
current-context: grapnel
KUBECONFIG
    )
}
