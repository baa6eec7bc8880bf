# Names for the scripts, which work without just. Arguments are passed on: just test --only clippy
set positional-arguments

# Lists the recipes.
default:
    @just --list

# Runs every check of the project.
test *arguments:
    @scripts/test "$@"

# Shows Grapnel at work on this machine.
demo *arguments:
    @scripts/demo "$@"

# Measures rates, latencies and processor time.
bench *arguments:
    @scripts/bench "$@"

# Starts and stops private PostgreSQL, Redis and RabbitMQ.
services *arguments:
    @scripts/services "$@"

# Starts and stops a private Kubernetes.
cluster *arguments:
    @scripts/cluster "$@"

# Builds the images.
images *arguments:
    @scripts/images "$@"

# Checks the charts, or writes their README.
chart *arguments:
    @scripts/chart "$@"

# Tests the chart on a real node.
check-node *arguments:
    @scripts/check-node "$@"

# Tests the API against its description.
check-openapi *arguments:
    @scripts/check-openapi "$@"

# Tests the console in a browser.
console *arguments:
    @scripts/console "$@"

# Makes the pictures of the README.
pictures *arguments:
    @scripts/pictures "$@"

# Measures a neighbour beside what disturbs an installation.
check-isolation *arguments:
    @scripts/check-isolation "$@"
