# shellcheck shell=bash
# Stand-ins for the official images of PostgreSQL, Redis and RabbitMQ, made of this machine's Debian packages. Sourced by check-node.
#
# They honour the variables, arguments, users and paths that the chart uses of the official ones. No registry is asked, and nothing is
# installed that scripts/services does not need as well.

readonly DATASTORE_USER=999

# One root for all three; prints the archives.
datastore_images() {
    local work=$STATE_DIR/datastores root=$STATE_DIR/datastores/root name
    if [[ ! -s $work/rabbitmq.tar ]]; then
        rm -rf "$work"
        mkdir -p "$root"
        copy_packages "$root" bash coreutils sed grep mawk hostname procps libc-bin postgresql redis-server rabbitmq-server
        mkdir -p "$root/var/lib/postgresql/data" "$root/var/lib/rabbitmq" "$root/etc/rabbitmq" "$root/tmp" "$root/data"
        ln -sf mawk "$root/usr/bin/awk"
        [[ -e $root/bin/sh ]] || ln -sf bash "$root/bin/sh"
        printf 'root:x:0:0::/:/bin/sh\ndatastore:x:%s:%s::/tmp:/bin/sh\n' "$DATASTORE_USER" "$DATASTORE_USER" >"$root/etc/passwd"
        printf 'root:x:0:\ndatastore:x:%s:\n' "$DATASTORE_USER" >"$root/etc/group"
        printf '[rabbitmq_management].\n' >"$root/etc/rabbitmq/enabled_plugins"
        postgres_entrypoint >"$root/usr/bin/postgres-entrypoint"
        printf '#!/bin/sh\nexec /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server\n' >"$root/usr/bin/rabbitmq-entrypoint"
        chmod 755 "$root/usr/bin/postgres-entrypoint" "$root/usr/bin/rabbitmq-entrypoint"
        local path
        path=$(cd "$root" && printf '/%s:' usr/lib/postgresql/*/bin)/usr/sbin:/usr/bin:/sbin:/bin
        for name in postgres redis rabbitmq; do
            oci_image "$work/$name" "$work/$name.tar" "$REPOSITORY/$name:1" 0 "$(datastore_config "$name" "$path")" "$root"
            rm -rf "${work:?}/$name"
        done
        rm -rf "$root"
    fi
    printf '%s\n' "$work/postgres.tar" "$work/redis.tar" "$work/rabbitmq.tar"
}

datastore_config() { # name path
    jq -nc --arg name "$1" --arg path "$2" --arg user "$DATASTORE_USER:$DATASTORE_USER" '{User: $user, Env: (["PATH=" + $path, "LANG=C.UTF-8"] +
        if $name == "rabbitmq" then ["HOME=/var/lib/rabbitmq", "RABBITMQ_MNESIA_BASE=/var/lib/rabbitmq/mnesia", "RABBITMQ_LOGS=-",
            "RABBITMQ_ENABLED_PLUGINS_FILE=/etc/rabbitmq/enabled_plugins", "RABBITMQ_PID_FILE=/tmp/rabbitmq.pid"] else [] end)}
        + if $name == "redis" then {} else {Entrypoint: [$name + "-entrypoint"]} end'
}

postgres_entrypoint() {
    cat <<'ENTRYPOINT'
#!/bin/bash
set -e
if [[ ! -s $PGDATA/PG_VERSION ]]; then
    initdb --pgdata "$PGDATA" --username "$POSTGRES_USER" --pwfile <(printf '%s\n' "$POSTGRES_PASSWORD") \
        --auth-host scram-sha-256 --auth-local trust --encoding UTF8 --locale C.UTF-8
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    postgres --single -D "$PGDATA" postgres <<<"CREATE DATABASE \"$POSTGRES_DB\""
fi
exec postgres -D "$PGDATA" -c 'listen_addresses=*' -c unix_socket_directories=/var/run/postgresql "$@"
ENTRYPOINT
}

# The files of packages and of all that they depend on, without what is only to be read.
copy_packages() { # directory package…
    local directory=$1 packages
    shift
    packages=$(apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances "$@" | grep '^[a-z0-9]' | sort -u)
    # shellcheck disable=SC2086 # a list of names
    dpkg --listfiles $packages 2>/dev/null | grep -vE '^/usr/share/(doc|man|locale|info|lintian|bug)/' | sort -u |
        while read -r file; do [[ -d $file && ! -L $file ]] || [[ ! -e $file ]] || printf '%s\n' "${file#/}"; done |
        tar --create --directory / --files-from - | tar --extract --directory "$directory"
}

# Volumes without a provisioner: two directories of this machine.
create_volumes() { # namespace
    local store
    for store in postgres rabbitmq; do
        mkdir -p "$STATE_DIR/volumes/$store"
        chown "$DATASTORE_USER:$DATASTORE_USER" "$STATE_DIR/volumes/$store"
        kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: PersistentVolume
metadata: {name: $1-$store}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {storage: 10Gi}
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: $1, name: data-$RELEASE-$store-0}
  hostPath: {path: $STATE_DIR/volumes/$store, type: Directory}
YAML
    done
}
