# shellcheck shell=bash
# Builds the pinned Kubernetes binaries of hack/cluster, once for each machine and pin. Sourced by cluster, after packages.sh.
#
# A binary is kept outside the checkout, in a directory named after everything that determines its contents: the pins with
# their checksums, the Go release and the build flags. So a binary that exists is current, and only missing ones are built.

readonly CACHE_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/grapnel/cluster
# Kubernetes 1.x: the oldest release that the definitions and the controller are tested with.
readonly OLDEST_MINOR=33
readonly GO_FLAGS='-mod=readonly -trimpath -buildvcs=false'
# Days without use after which an old binary is removed when a new one has been built.
readonly CACHE_DAYS=30

# Makes sure that the binaries exist.
build() { # name…
    local name pin path
    for name in "$@"; do
        pin_of "$name" >/dev/null || usage_error "'$name' is not one of: $(pinned_names | tr '\n' ' ')"
    done
    for name in "$@"; do
        pin=$(pin_of "$name")
        ensure_go "${pin%% *}"
        path=$(binary "$name")
        [[ -x $path ]] || build_missing "$name" "$path"
        # The time of the directory is that of the last use.
        touch "${path%/*}"
    done
}

# Prints the path of a binary, which may not be built yet.
binary() { # name
    local module package version go key
    read -r module package version _ < <(pin_of "$1")
    go=$(find_go "$module")
    key=$({
        cat "$module/go.mod" "$module/go.sum"
        go_version "$go" "$module"
        printf '%s\n' "$package" "$GO_FLAGS" "$(link_flags "$package" "$version")"
    } | sha256sum | cut -c 1-16)
    printf '%s/%s-%s-%s/%s\n' "$CACHE_DIR" "$1" "$version" "$key" "$1"
}

build_missing() { # name path
    local name=$1 path=$2 module package version go started
    read -r module package version _ < <(pin_of "$name")
    mkdir -p "$CACHE_DIR"
    (
        # One build at a time: the binaries share most of their packages, and each build fills the machine.
        flock -n 8 || { note "another build is running; waiting for it" && flock 8; }
        [[ ! -x $path ]] || exit 0
        go=$(find_go "$module")
        say "Building $name $version with $(go_version "$go" "$module"), once for this machine (the first takes minutes)"
        started=$(now_ms)
        mkdir -p "${path%/*}"
        cd "$module" || exit
        # Without cgo, binaries are static and need no C compiler. The rename makes a binary appear only when it is complete.
        CGO_ENABLED=0 GOWORK=off GOFLAGS=$GO_FLAGS nice -n 10 "$go" build -o "$path.part" \
            -ldflags "$(link_flags "$package" "$version")" "$package" ||
            die "$name could not be built"
        mv "$path.part" "$path"
        note "$name is built ($(seconds $(($(now_ms) - started))), $(($(stat -c %s "$path") / 1000000)) MB)"
        find "$CACHE_DIR" -mindepth 1 -maxdepth 1 -type d -name "$name-v*" -mtime +$CACHE_DAYS -exec rm -r {} +
    ) 8>"$CACHE_DIR/lock"
}

# Prints the pin of a binary in go.mod: `MODULE_DIRECTORY PACKAGE VERSION NAME`. Fails for an unknown name.
pin_of() { # name
    local line
    line=$(pins | grep -E " $1\$") && printf '%s\n' "$line"
}

pinned_names() { pins | sed 's|.* ||'; }

# A `tool` line names a package; its version is that of the required module that contains it. The only binary of a folder has
# the name of the folder, so that there can be two releases of one program.
pins() {
    local file
    for file in "$ROOT_DIR"/hack/cluster/*/go.mod; do
        awk -v module="${file%/*}" '
            $1 == "tool" && $2 != "(" { tools[$2] }
            $1 == "tool" || $1 == "require" || $1 == "replace" { block = $1 }
            block == "tool" && NF == 1 && $1 != ")" { tools[$1] }
            block == "require" && $2 ~ /^v/ { version[$1] = $2 }
            $1 == "require" && $3 ~ /^v/ { version[$2] = $3 }
            END {
                for (tool in tools) {
                    best = ""
                    for (path in version) if (index(tool "/", path "/") == 1 && length(path) > length(best)) best = path
                    name = length(tools) == 1 ? module : tool
                    sub(".*/", "", name)
                    print module, tool, version[best], name
                }
            }' "$file" | sort
    done
}

# Prints flags that strip a binary and set its version, which would be v0.0.0.
link_flags() { # package version
    local package=$1 version=$2
    printf '%s' '-s -w'
    case $package in
        k8s.io/kubernetes/*)
            printf ' -X %s/version.gitVersion=%s' \
                k8s.io/component-base "$version" k8s.io/client-go/pkg "$version"
            ;;
        helm.sh/helm/v3/*)
            printf ' -X %s=%s' "${package%/cmd/helm}/internal/version.version" "$version"
            # The Kubernetes that Helm assumes without a cluster; it would be 1.20.
            printf ' -X helm.sh/helm/v3/pkg/%s' chartutil.k8sVersionMajor=1 "chartutil.k8sVersionMinor=$OLDEST_MINOR" \
                lint/rules.k8sVersionMajor=1 "lint/rules.k8sVersionMinor=$OLDEST_MINOR"
            ;;
        helm.sh/helm/*) printf ' -X %s=%s' "${package%/cmd/helm}/internal/version.version" "$version" ;;
        github.com/yannh/kubeconform/*) printf ' -X main.version=%s' "$version" ;;
    esac
}

# --- Go ----------------------------------------------------------------------------------------------------------------

# Installs Debian's Go if no installed Go is new enough for the pins and Debian's is.
ensure_go() { # module directory
    ! find_go "$1" >/dev/null || return 0
    local wanted debian
    wanted=$(wanted_go "$1")
    # 2:1.24~2 → 1.24
    debian=$(LC_ALL=C apt-cache policy golang-go 2>/dev/null |
        sed -n 's/^ *Candidate: *\([0-9]*:\)\{0,1\}\([0-9.]*\).*/\2/p') || debian=''
    if [[ -n $debian ]] && is_at_least "$debian" "$wanted"; then
        install_packages golang-go
    fi
    find_go "$1" >/dev/null ||
        die "Go $wanted or newer is needed to build the Kubernetes binaries, and this system's packages have ${debian:-none}; https://go.dev/dl has it"
}

# Prints a Go that is new enough, on the PATH or where installers put it.
find_go() { # module directory
    local go version wanted
    wanted=$(wanted_go "$1")
    for go in "$(type -P go || true)" /usr/local/go/bin/go /usr/lib/go-*/bin/go; do
        [[ -x $go ]] || continue
        version=$(go_version "$go" "$1") || continue
        if is_at_least "${version#go}" "$wanted"; then
            printf '%s\n' "$go"
            return 0
        fi
    done
    return 1
}

# Prints the release that builds a module: a Go that may fetch newer releases (GOTOOLCHAIN) prints the one it would fetch.
go_version() { (cd "$2" && "$1" env GOVERSION); } # go module-directory

# 1.24.0 → 1.24, since the first release of a series may have either name.
wanted_go() { sed -n 's/^go \([0-9.]*\)$/\1/p' "$1/go.mod" | sed 's/^\([0-9]*\.[0-9]*\)\.0$/\1/'; }

is_at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]; } # version oldest
