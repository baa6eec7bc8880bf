# shellcheck shell=bash
# Writes OCI image archives with tar, gzip, sha256sum and jq. Sourced after common.sh.
#
# OCI_GZIP is the level of compression (default: -9, the smallest).
#
# Invariant: the same files, configuration and time give the same bytes.

# Writes an archive of one image whose layers are directories, the lowest first.
oci_image() { # work-directory archive name epoch config-json layer-directory…
    local layout=$1 archive=$2 name=$3 epoch=$4 config=$5 layer
    shift 5
    local diff_ids=() layers=()
    mkdir -p "$layout/blobs/sha256"
    for layer in "$@"; do
        oci_tar "$epoch" "$layer" >"$layout/layer.tar"
        diff_ids+=("sha256:$(oci_digest "$layout/layer.tar")")
        gzip -n "${OCI_GZIP:--9}" "$layout/layer.tar"
        layers+=("$(oci_blob "$layout" "$layout/layer.tar.gz" application/vnd.oci.image.layer.v1.tar+gzip)")
    done
    jq -nc --arg created "$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)" --arg architecture "$(oci_architecture)" \
        --argjson config "$config" '{created: $created, architecture: $architecture, os: "linux", config: $config,
            rootfs: {type: "layers", diff_ids: $ARGS.positional}, history: [$ARGS.positional[] | {created: $created}]}' \
        --args "${diff_ids[@]}" >"$layout/config"
    config=$(oci_blob "$layout" "$layout/config" application/vnd.oci.image.config.v1+json)
    printf '%s\n' "${layers[@]}" | jq -sc --argjson config "$config" '{schemaVersion: 2,
        mediaType: "application/vnd.oci.image.manifest.v1+json", config: $config, layers: .}' >"$layout/manifest"
    # skopeo uses the short name, containerd the long one.
    oci_blob "$layout" "$layout/manifest" application/vnd.oci.image.manifest.v1+json |
        jq -c --arg name "$name" '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: [. + {annotations:
            {"io.containerd.image.name": $name, "org.opencontainers.image.ref.name": ($name | split(":") | last)}}]}' \
            >"$layout/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
    oci_tar "$epoch" "$layout" >"$archive.part"
    mv "$archive.part" "$archive"
}

# Moves a file to the blobs, and prints its descriptor.
oci_blob() { # layout file media-type
    local digest size
    digest=$(oci_digest "$2")
    size=$(stat -c %s "$2")
    mv "$2" "$1/blobs/sha256/$digest"
    jq -nc --arg type "$3" --arg digest "sha256:$digest" --argjson size "$size" \
        '{mediaType: $type, digest: $digest, size: $size}'
}

oci_digest() { sha256sum "$1" | cut -d ' ' -f 1; }

# Everybody may read and only root may write. The archive contains no trace of the builder or the time of the build.
oci_tar() { # epoch directory
    tar --create --directory "$2" --format gnu --sort name --mtime "@$1" --owner 0 --group 0 --numeric-owner \
        --mode 'u=rwX,go=rX' .
}

oci_architecture() {
    case $(uname -m) in
        x86_64) printf 'amd64\n' ;;
        aarch64) printf 'arm64\n' ;;
        *) die "images for $(uname -m) are not supported" ;;
    esac
}
