# shellcheck shell=bash
# The images for the node: built from this checkout or given, and loaded under the names in the values. Sourced after oci.sh
# and rust.sh.

readonly TAG=0.0.0-test
# The release to which an upgrade goes. Its additional migration has the highest number.
readonly NEXT_TAG=0.0.1-test NEXT_MIGRATION=9999
readonly REPOSITORY=grapnel.local
readonly RECEIVER_IMAGE=$REPOSITORY/receiver:1

# Builds the images of this checkout. Needs no root.
build_images() {
    IMAGES=$STATE_DIR/images
    # They are read only once, on this machine.
    export OCI_GZIP=-1
    "$ROOT_DIR/scripts/images" --debug --out "$IMAGES" --tag "$TAG" --repository "$REPOSITORY"
}

# Builds the images of this checkout, and those of a next release with one more migration.
build_both_images() {
    local next=$STATE_DIR/next
    build_next_program "$next"
    build_images
    ln -f "$(target_dir)/debug/grapnel-controller" "$(target_dir)/debug/grapnel-loadtest" "$next/"
    "$ROOT_DIR/scripts/images" --debug --binaries "$next" --out "$IMAGES/next" --tag "$NEXT_TAG" --repository "$REPOSITORY"
    rm -rf "$next"
}

# Builds `grapnel` from a copy of the sources with one more migration. The compiled dependencies are shared with this
# checkout, whose next build replaces what is left in the target directory.
build_next_program() { # directory
    local sources=$1/sources migrations
    rm -rf "$1"
    mkdir -p "$sources"
    tar -C "$ROOT_DIR" --anchored --exclude ./.git --exclude ./.state --exclude ./target --exclude ./fuzz -c . | tar -C "$sources" -x
    migrations=$(grep -rl --include '*.rs' 'const MIGRATIONS' "$sources")
    # It changes a table that every webhook writes to.
    perl -0pi -e "s/(const MIGRATIONS.*?),?\s*\];/\$1, ($NEXT_MIGRATION, \"next\", \"ALTER TABLE deliveries ADD COLUMN next text\")];/s" \
        "$migrations"
    grep -q "$NEXT_MIGRATION" "$migrations" || die "no migration could be added to ${migrations#"$sources"/}"
    say "Building a next release, with one more migration"
    (cd "$sources" && CARGO_TARGET_DIR=$(target_dir) cargo build --locked --workspace --bin grapnel)
    mv "$(target_dir)/debug/grapnel" "$1/grapnel"
    rm -rf "$sources"
}

load_all_images() {
    load_programs "$IMAGES" "$TAG"
    # Without images of a next release, an upgrade goes to the same ones under another name.
    if [[ -d $IMAGES/next ]]; then load_programs "$IMAGES/next" "$NEXT_TAG"; else load_programs "$IMAGES" "$NEXT_TAG"; fi
    # It runs outside the cluster.
    LOADTEST=$STATE_DIR/grapnel-loadtest
    program_of "$IMAGES/grapnel-loadtest.tar" grapnel-loadtest >"$LOADTEST.part"
    chmod +x "$LOADTEST.part"
    mv "$LOADTEST.part" "$LOADTEST"
    cluster load "$(receiver_image)"
}

# Loads the images of a directory, under the names in the values.
load_programs() { # directory tag
    local name archive
    for name in grapnel grapnel-controller grapnel-loadtest; do
        archive=$1/$name.tar
        cluster load "$archive"
        ctr --address "$STATE_DIR/cluster/containerd.sock" --namespace k8s.io \
            images tag --force "$(archive_name "$archive")" "$REPOSITORY/$name:$2" >/dev/null
    done
}

archive_name() { tar -xOf "$1" ./index.json | jq -r '.manifests[0].annotations["io.containerd.image.name"]'; } # archive

# Prints a program from the last layer of an image.
program_of() { # archive name
    local manifest layer
    manifest=$(tar -xOf "$1" ./index.json | jq -r '.manifests[0].digest | sub(":"; "/")')
    layer=$(tar -xOf "$1" "./blobs/$manifest" | jq -r '.layers[-1].digest | sub(":"; "/")')
    tar -xOf "$1" "./blobs/$layer" | tar -xzO "./usr/local/bin/$2"
}

# Builds a receiver of webhooks that prints every request: a shell script under busybox, so that it shares no code with the
# platform under test. Prints the archive.
receiver_image() {
    local work=$STATE_DIR/receiver
    mkdir -p "$work/root/bin"
    cp /bin/busybox "$work/root/bin/busybox"
    ln -sf busybox "$work/root/bin/sh"
    cp "$ROOT_DIR/scripts/lib/node/receive.sh" "$work/root/bin/receive"
    chmod 755 "$work/root/bin/receive"
    rm -rf "$work/layout"
    oci_image "$work/layout" "$work/receiver.tar" "$RECEIVER_IMAGE" 0 \
        '{"Entrypoint": ["/bin/busybox", "nc", "-ll", "-p", "8080", "-e", "/bin/receive"], "Env": ["PATH=/bin"], "User": "65532:65532"}' \
        "$work/root"
    rm -rf "$work/layout"
    printf '%s\n' "$work/receiver.tar"
}
