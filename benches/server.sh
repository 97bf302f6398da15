# shellcheck shell=bash
# Sourced by backup.sh and micro.sh, which have a function `fail`: a directory with throwaway servers, gone at the end whatever happens.

work=
drop=()
environment=()

clean_up() {
    local status=$? data
    trap - EXIT
    trap '' INT TERM HUP
    if [[ -n $work ]]; then
        for data in "$work"/data "$work"/restored; do
            [[ ! -e $data/postmaster.pid ]] || as_server pg_ctl --pgdata "$data" --mode immediate --silent stop >/dev/null 2>&1 || true
        done
        rm -rf "$work"
    fi
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# Leaves in PG_BIN the directory of a server with initdb and pgbench, unless it is set.
find_postgres() {
    local candidate
    if [[ -z ${PG_BIN:-} ]]; then
        for candidate in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) "$(dirname "$(command -v pgbench || echo /none)")"; do
            [[ ! -x $candidate/pgbench || ! -x $candidate/initdb ]] || { PG_BIN=$candidate; break; }
        done
    fi
    [[ -n ${PG_BIN:-} ]] || fail "no PostgreSQL with pgbench: sudo apt-get install postgresql, or set PG_BIN"
}

# Makes the directory, for the server's user, and leaves it in `work`. What runs as that user gets what is in `environment`.
make_work() { # name
    local user
    work=$(mktemp -d "${WALVIS_BENCH_DIR:-/tmp}/$1.XXXXXX")
    chmod 755 "$work"
    mkdir "$work/bin"
    if [[ $(id -u) -eq 0 ]]; then
        user=postgres
        id "$user" >/dev/null 2>&1 || user=nobody
        drop=(setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups)
        chown "$user" "$work"
    fi
    environment=(env -i HOME="$work" LC_ALL=C PATH="$work/bin:${PG_BIN:-}:$PATH" PGHOST="$work/socket" PGUSER=postgres PGDATABASE=postgres)
    as_server mkdir "$work/socket"
}
as_server() { (cd "$work" && exec ${drop[@]+"${drop[@]}"} "${environment[@]}" "$@"); }
sql() { as_server psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 --command "$1"; }

start() { # data directory, options of the server
    as_server pg_ctl --pgdata "$1" --log "$work/server.log" --wait --timeout 600 --silent ${2:+--options "$2"} start >/dev/null ||
        { tail -n 20 "$work/server.log" >&2; fail "the server does not start"; }
}
stop() { as_server pg_ctl --pgdata "$1" --mode "${2:-fast}" --wait --timeout 600 --silent stop >/dev/null; }
