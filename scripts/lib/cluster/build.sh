# shellcheck shell=bash
# Builds the pinned Kubernetes binaries of hack/cluster, once for each machine and pin. Sourced by cluster, after packages.sh.
#
# A binary lies outside the checkout, in a directory named after everything that decides its contents (the pins with their
# checksums, the Go release, the build flags): what is there is right, and what is missing is built.

readonly CACHE_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/grapnel/cluster
# Kubernetes 1.x: the oldest release that the definitions and the controller are tested with.
readonly OLDEST_MINOR=33
readonly GO_FLAGS='-mod=readonly -trimpath -buildvcs=false'
# Days after which a binary that nobody has used makes room for those that were built since.
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
        # The directory's time says when it was last asked for.
        touch "${path%/*}"
    done
}

# The path of a binary, built or not.
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
        # CGO off: static binaries, and no C compiler needed. A finished binary appears at once or not at all.
        CGO_ENABLED=0 GOWORK=off GOFLAGS=$GO_FLAGS nice -n 10 "$go" build -o "$path.part" \
            -ldflags "$(link_flags "$package" "$version")" "$package" ||
            die "$name could not be built"
        mv "$path.part" "$path"
        note "$name is built ($(seconds $(($(now_ms) - started))), $(($(stat -c %s "$path") / 1000000)) MB)"
        find "$CACHE_DIR" -mindepth 1 -maxdepth 1 -type d -name "$name-v*" -mtime +$CACHE_DAYS -exec rm -r {} +
    ) 8>"$CACHE_DIR/lock"
}

# What go.mod files pin: `MODULE_DIRECTORY PACKAGE VERSION NAME` of a binary. Fails for an unknown name.
pin_of() { # name
    local line
    line=$(pins | grep -E " $1\$") && printf '%s\n' "$line"
}

pinned_names() { pins | sed 's|.* ||'; }

# A `tool` line names a package; its version is that of the required module which contains it. A folder's only binary is called
# after the folder, so that there can be two releases of one program.
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

# Stripped, and knowing their own version: the API server would announce v0.0.0.
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
            # The Kubernetes that is assumed without a cluster; it would be 1.20.
            printf ' -X helm.sh/helm/v3/pkg/%s' chartutil.k8sVersionMajor=1 "chartutil.k8sVersionMinor=$OLDEST_MINOR" \
                lint/rules.k8sVersionMajor=1 "lint/rules.k8sVersionMinor=$OLDEST_MINOR"
            ;;
        helm.sh/helm/*) printf ' -X %s=%s' "${package%/cmd/helm}/internal/version.version" "$version" ;;
        github.com/yannh/kubeconform/*) printf ' -X main.version=%s' "$version" ;;
    esac
}

# --- Go ----------------------------------------------------------------------------------------------------------------

# Installs Debian's Go where no Go is new enough for the pins and Debian's is.
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

# A Go on the PATH, or where its installers put it, that is new enough.
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

# The release that builds this module: a Go that may fetch newer ones (GOTOOLCHAIN) answers with the one it would fetch.
go_version() { (cd "$2" && "$1" env GOVERSION); } # go module-directory

# 1.24.0 → 1.24, which is how the first release of a series may call itself.
wanted_go() { sed -n 's/^go \([0-9.]*\)$/\1/p' "$1/go.mod" | sed 's/^\([0-9]*\.[0-9]*\)\.0$/\1/'; }

is_at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]; } # version oldest
