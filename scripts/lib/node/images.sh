# shellcheck shell=bash
# The images of check-node: where they come from, and under which names the node has them. Sourced after oci.sh.

readonly TAG=0.0.0-test
# What an upgrade goes to.
readonly NEXT_TAG=0.0.1-test NEXT_MIGRATION=9999
readonly REPOSITORY=grapnel.local
readonly RECEIVER_IMAGE=$REPOSITORY/receiver:1

# Of this checkout. Needs no root.
build_images() {
    IMAGES=$STATE_DIR/images
    # They are read once, and right here.
    export OCI_GZIP=-1
    "$ROOT_DIR/scripts/images" --debug --out "$IMAGES" --tag "$TAG" --repository "$REPOSITORY"
}

# Of this checkout, and of a next release that has one more migration.
build_both_images() {
    local next=$STATE_DIR/next
    build_next_program "$next"
    build_images
    ln -f "$ROOT_DIR/target/debug/grapnel-controller" "$next/"
    "$ROOT_DIR/scripts/images" --debug --binaries "$next" --out "$IMAGES/next" --tag "$NEXT_TAG" --repository "$REPOSITORY"
    rm -rf "$next"
}

# From a copy of the sources, but with the dependencies that are compiled. What it leaves in target/debug is put right by the next
# build there.
build_next_program() { # directory
    local sources=$1/sources
    rm -rf "$1"
    mkdir -p "$sources"
    tar -C "$ROOT_DIR" -c Cargo.toml Cargo.lock crds runtime controller migrations | tar -C "$sources" -x
    # It changes a table that every webhook writes to.
    perl -0pi -e "s/(const MIGRATIONS.*?),?\s*\];/\$1, ($NEXT_MIGRATION, \"next\", \"ALTER TABLE deliveries ADD COLUMN next text\")];/s" \
        "$sources/runtime/src/store/migrate.rs"
    say "Building a next release, with one more migration"
    (cd "$sources" && CARGO_TARGET_DIR=$ROOT_DIR/target cargo build --locked --workspace --bin grapnel)
    mv "$ROOT_DIR/target/debug/grapnel" "$1/grapnel"
    rm -rf "$sources"
}

load_all_images() {
    load_programs "$IMAGES" "$TAG"
    # Without images of a next release, the same ones under another name.
    if [[ -d $IMAGES/next ]]; then load_programs "$IMAGES/next" "$NEXT_TAG"; else load_programs "$IMAGES" "$NEXT_TAG"; fi
    GRAPNEL=$STATE_DIR/grapnel
    program_of "$IMAGES/grapnel.tar" >"$GRAPNEL.part"
    chmod +x "$GRAPNEL.part"
    mv "$GRAPNEL.part" "$GRAPNEL"
    cluster load "$(receiver_image)"
}

# Loads both images of a directory, under the names that the values have.
load_programs() { # directory tag
    local name archive
    for name in grapnel grapnel-controller; do
        archive=$1/$name.tar
        cluster load "$archive"
        ctr --address "$STATE_DIR/cluster/containerd.sock" --namespace k8s.io \
            images tag --force "$(archive_name "$archive")" "$REPOSITORY/$name:$2" >/dev/null
    done
}

archive_name() { tar -xOf "$1" ./index.json | jq -r '.manifests[0].annotations["io.containerd.image.name"]'; }

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
