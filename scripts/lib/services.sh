# shellcheck shell=bash
# The private PostgreSQL, Redis and RabbitMQ of a script. Sourced after common.sh. SERVICES_STATE is set by the caller.

services() { "$ROOT_DIR/scripts/services" --state "$SERVICES_STATE" "$@"; }

# Exports where they are.
use_services() { eval "$(services env)"; }
