#!/usr/bin/env bash
# Runs the micro-benchmarks on WAL that a real PostgreSQL wrote for it: criterion's, and the limit of the machine.
#
#   benches/micro.sh [BENCH…] [-- ARGUMENT…]
#
#   BENCH       codec (sealing and opening a segment), scan (of its WAL), catalog (look-ups in a long log), limit [all of them]
#   ARGUMENT    for criterion, for example a part of a name: benches/micro.sh codec -- seal; `--help` lists them
#
# WALVIS_BENCH_SEGMENTS  segments for codec, scan and limit, full paths joined by `:`; else a throwaway server makes two: one mostly of
#                        full-page images, one hardly, compressing 2.8 and 2.4 times
# WALVIS_BENCH_LOG       segments of the log of catalog                                                   [1000000]
# WALVIS_BENCH_KEEP      directory in which catalog makes its repository, and leaves it                 [a temporary one]
# WALVIS_BENCH_DIR       where everything is made and removed at the end                                     [/tmp]
# PG_BIN                 directory of a server with initdb, pgbench and psql; the newest of the distribution's if not set
#
# Runs as root (the server then runs as `postgres` or `nobody`) or not. Results go to stdout, progress to stderr.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=server.sh
source "$root/benches/server.sh"
fail() {
    printf 'micro.sh: %s\n' "$*" >&2
    exit 1
}

benches=()
while [[ $# -gt 0 && $1 != -- ]]; do
    [[ $1 == codec || $1 == scan || $1 == catalog || $1 == limit ]] || fail "no such benchmark: $1 (codec, scan, catalog, limit)"
    benches+=("$1")
    shift
done
[[ $# -eq 0 ]] || shift
[[ ${#benches[@]} -gt 0 ]] || benches=(codec scan limit catalog)

command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
command -v cargo >/dev/null || fail "cargo is missing. Install Rust first: https://rustup.rs"

makes_segments=false
[[ ! " ${benches[*]} " =~ \ (codec|scan|limit)\  || -n ${WALVIS_BENCH_SEGMENTS:-} ]] || makes_segments=true
[[ $makes_segments == false ]] || find_postgres
make_work walvis-micro

# ---- segments --------------------------------------------------------------------------------------------------------------

load() {
    as_server pgbench --no-vacuum --client 4 --transactions 40000 --file "$work/load.sql" >"$work/load.log" 2>&1 ||
        { tail -n 5 "$work/load.log" >&2; fail "pgbench failed"; }
}
# Leaves the paths of two segments in WALVIS_BENCH_SEGMENTS.
make_segments() {
    as_server initdb --pgdata "$work/data" --username postgres --auth trust --no-sync >/dev/null
    cat <<CONF | as_server tee -a "$work/data/postgresql.conf" >/dev/null
listen_addresses = ''
unix_socket_directories = '$work/socket'
shared_buffers = 256MB
max_wal_size = 4GB
checkpoint_timeout = 1h
autovacuum = off
fsync = off
CONF
    start "$work/data"
    local text="md5(random()::text) || md5(random()::text)" first middle last
    sql "create table account (id int primary key, balance int, filler text);
         insert into account select n, 0, $text from generate_series(1, 1000000) n;
         create table history (id int, at timestamptz, what text)"
    cat <<LOAD | as_server tee "$work/load.sql" >/dev/null
\set id random(1, 1000000)
begin;
update account set balance = balance + 1, filler = $text where id = :id;
insert into history values (:id, now(), md5(random()::text));
commit;
LOAD
    sql "checkpoint; select pg_switch_wal()" >/dev/null
    first=$(sql "select pg_walfile_name(pg_current_wal_insert_lsn() + 16777216)")
    load
    # Every page has been changed since the checkpoint by then.
    middle=$(sql "select pg_walfile_name(pg_current_wal_insert_lsn() + 16777216)")
    load
    last=$(sql "select pg_walfile_name(pg_current_wal_insert_lsn())")
    [[ $last > $middle ]] || fail "the load did not fill a segment"
    mkdir "$work/wal"
    cp "$work/data/pg_wal/$first" "$work/data/pg_wal/$middle" "$work/wal/"
    stop "$work/data" immediate
    export WALVIS_BENCH_SEGMENTS=$work/wal/$first:$work/wal/$middle
}

[[ $makes_segments == false ]] || make_segments

# ---- benchmarks ------------------------------------------------------------------------------------------------------------

cd "$root"
for bench in "${benches[@]}"; do
    if [[ $bench == limit ]]; then
        IFS=: read -ra segments <<<"$WALVIS_BENCH_SEGMENTS"
        cargo bench --quiet --bench limit -- "${segments[@]}"
    else
        TMPDIR=$work cargo bench --quiet --bench "$bench" -- --noplot "$@"
    fi
done
