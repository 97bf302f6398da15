# shellcheck shell=bash
# Sourced by quickstart.sh and tests/run.sh: programs of the system that may be missing.

# Makes sure that a command succeeds; as root on Debian or Ubuntu it installs the package that brings what the command needs.
# need PACKAGE COMMAND… ; fails when the command still does.
need() {
    local package=$1 log
    shift
    "$@" >/dev/null 2>&1 && return 0
    [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null || return 1
    echo "installing $package (apt-get install $package)"
    log=$(mktemp)
    (
        export DEBIAN_FRONTEND=noninteractive
        apt-get install --yes --quiet --no-install-recommends "$package" ||
            { apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends "$package"; }
    ) </dev/null >"$log" 2>&1 || tail -n 5 "$log"
    rm -f "$log"
    hash -r
    "$@" >/dev/null 2>&1
}
