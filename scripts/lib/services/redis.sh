# shellcheck shell=bash
# A private Redis. It stores nothing on disk: Grapnel loses no event when Redis loses its data. Sourced by services.

redis_start() {
    local dir=$DATA_DIR/redis
    [[ -d $dir ]] || make_data_dir "$dir" "$REDIS_USER"
    (umask 077 && redis_settings >"$dir/redis.conf")
    as_owner "$REDIS_USER" "$dir/redis.conf"
    launch redis "$REDIS_USER" redis-server "$dir/redis.conf"
    wait_for_service redis 15 redis_answers
}

redis_settings() {
    cat <<SETTINGS
bind 127.0.0.1 $LISTEN
port $REDIS_PORT
requirepass $PASSWORD
dir $DATA_DIR/redis
save ""
appendonly no
maxmemory 256mb
SETTINGS
}

redis_answers() {
    [[ $(REDISCLI_AUTH=$PASSWORD redis-cli -h 127.0.0.1 -p "$REDIS_PORT" PING) == PONG ]]
}

redis_stop() { stop_process redis TERM 10; }
