# shellcheck shell=bash
# A substitute for the official images of PostgreSQL, Redis and RabbitMQ, made from this machine's Debian packages. Sourced
# after setup.sh.
#
# It supports those variables, arguments, users and paths of the official images that the chart uses. It needs no registry and
# no package that scripts/services does not need.

readonly DATASTORE_USER=999

# Builds one image for all three, since they share most of their files; the variables of a container select the program.
# Prints the archive.
datastore_image() {
    local work=$STATE_DIR/datastores root=$STATE_DIR/datastores/root path
    if [[ ! -s $work/datastores.tar ]]; then
        rm -rf "$work"
        mkdir -p "$root"
        copy_packages "$root" bash coreutils sed grep mawk hostname procps libc-bin postgresql redis-server rabbitmq-server
        mkdir -p "$root/var/lib/postgresql/data" "$root/var/lib/rabbitmq" "$root/etc/rabbitmq" "$root/tmp" "$root/data"
        ln -sf mawk "$root/usr/bin/awk"
        ln -sf bash "$root/usr/bin/sh"
        printf 'root:x:0:0::/:/bin/sh\ndatastore:x:%s:%s::/tmp:/bin/sh\n' "$DATASTORE_USER" "$DATASTORE_USER" >"$root/etc/passwd"
        printf 'root:x:0:\ndatastore:x:%s:\n' "$DATASTORE_USER" >"$root/etc/group"
        printf '[rabbitmq_management].\n' >"$root/etc/rabbitmq/enabled_plugins"
        datastore_entrypoint >"$root/usr/bin/datastore"
        chmod 755 "$root/usr/bin/datastore"
        path=$(cd "$root" && printf '/%s:' usr/lib/postgresql/*/bin)/usr/sbin:/usr/bin
        # It is read only once, on this machine.
        OCI_GZIP=-1 oci_image "$work/layout" "$work/datastores.tar" "$REPOSITORY/datastores:1" 0 "$(jq -nc --arg path "$path" \
            --arg user "$DATASTORE_USER:$DATASTORE_USER" \
            '{User: $user, Env: ["PATH=" + $path, "LANG=C.UTF-8"], Entrypoint: ["/usr/bin/datastore"]}')" "$root"
        rm -rf "$root" "$work/layout"
    fi
    printf '%s\n' "$work/datastores.tar"
}

datastore_entrypoint() {
    cat <<'ENTRYPOINT'
#!/bin/bash
set -e
if [[ -n ${POSTGRES_DB:-} ]]; then
    if [[ ! -s $PGDATA/PG_VERSION ]]; then
        initdb --pgdata "$PGDATA" --username "$POSTGRES_USER" --pwfile <(printf '%s\n' "$POSTGRES_PASSWORD") \
            --auth-host scram-sha-256 --auth-local trust --encoding UTF8 --locale C.UTF-8
        echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
        postgres --single -D "$PGDATA" postgres <<<"CREATE DATABASE \"$POSTGRES_DB\""
    fi
    exec postgres -D "$PGDATA" -c 'listen_addresses=*' -c unix_socket_directories=/var/run/postgresql "$@"
fi
if [[ -n ${RABBITMQ_DEFAULT_USER:-} ]]; then
    export HOME=/var/lib/rabbitmq RABBITMQ_MNESIA_BASE=/var/lib/rabbitmq/mnesia RABBITMQ_LOGS=- RABBITMQ_PID_FILE=/tmp/rabbitmq.pid \
        RABBITMQ_ENABLED_PLUGINS_FILE=/etc/rabbitmq/enabled_plugins
    exec /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server
fi
exec "$@"
ENTRYPOINT
}

# Copies the files of packages and of all their dependencies, without documentation.
copy_packages() { # directory package…
    local directory=$1 packages
    shift
    packages=$(apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances "$@" | grep '^[a-z0-9]' | sort -u)
    # Debian keeps everything under /usr, and links there from the root.
    local name
    for name in bin sbin lib lib64; do
        mkdir -p "$directory/usr/$name"
        ln -sfn "usr/$name" "$directory/$name"
    done
    # The list also has virtual packages, which have no files.
    # shellcheck disable=SC2086 # a list of names
    { dpkg --listfiles $packages 2>/dev/null || true; } | grep -vE '^/(usr/share/(doc|man|locale|info|lintian|bug)/|(bin|sbin|lib|lib64)$)' | sort -u |
        while read -r file; do [[ -d $file && ! -L $file ]] || [[ ! -e $file ]] || printf '%s\n' "${file#/}"; done |
        tar --create --directory / --files-from - | tar --extract --directory "$directory"
}

bundled_values() {
    common_values
    cat <<VALUES
bundled:
  postgres: {image: "$REPOSITORY/datastores:1"}
  redis: {image: "$REPOSITORY/datastores:1"}
  rabbitmq: {image: "$REPOSITORY/datastores:1"}
VALUES
}
