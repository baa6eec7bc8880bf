# shellcheck shell=bash
# The browser that looks at the console, and Node, which drives it. Sourced after packages.sh. Neither users nor builds need them.

readonly CONSOLE_TESTS=$ROOT_DIR/tests/console
readonly OLDEST_NODE=18

# Installs Debian's Chromium and Node where they are missing, and the packages of tests/console by their lock file.
install_browser() {
    local found installed=$CONSOLE_TESTS/node_modules/.installed
    ensure_packages chromium chromium node nodejs npm npm
    # Without any font a picture of a page has no text.
    compgen -G '/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf' >/dev/null || install_packages fonts-dejavu-core
    found=$(node --print 'process.versions.node.split(".")[0]')
    ((found >= OLDEST_NODE)) || die "Node $OLDEST_NODE or newer is needed, found $found"
    ! cmp -s "$CONSOLE_TESTS/package-lock.json" "$installed" || return 0
    note "Installing the packages of tests/console from npm"
    npm ci --prefix "$CONSOLE_TESTS" --no-audit --no-fund --loglevel=error >&2
    cp "$CONSOLE_TESTS/package-lock.json" "$installed"
}
