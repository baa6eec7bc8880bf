# shellcheck shell=bash
# The Rust toolchain and its results. Sourced after packages.sh.

# Makes sure that the workspace can be built, or explains what is missing.
ensure_rust() {
    [[ -d ${HOME:-}/.cargo/bin ]] && PATH=$HOME/.cargo/bin:$PATH
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT_DIR/Cargo.toml")
    command -v cargo >/dev/null || die "Rust $wanted or newer is needed; https://rustup.rs installs it"
    found=$(rustc --version)
    found=${found#rustc } found=${found%% *}
    [[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1) == "$wanted" ]] ||
        die "Rust $wanted or newer is needed, found $found; 'rustup update stable' installs it"
    # ring and mimalloc compile C.
    ensure_packages cc gcc '/usr/include/stdio.h' libc6-dev
}

# Where cargo puts what it builds.
target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$ROOT_DIR/target}"; }
