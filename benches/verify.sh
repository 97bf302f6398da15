#!/usr/bin/env bash
# How near `walvis verify --full` comes to what this machine can do at best, in one run: benches/verify.rs says how.
#
#   benches/verify.sh [ARGUMENT…]
#
#   ARGUMENT    for benches/verify.rs: --rounds N, --jobs N
#
# A throwaway server writes the WAL of small transactions and archives it into an encrypted repository in a directory, with zstd at its
# default levels; the first half is mostly full-page images, the other half hardly. A base backup of the server comes last.
#
# WALVIS_BENCH_COUNT  segments                                                                                    [96]
# WALVIS_BENCH_KEEP   directory with settings and repository; made where it does not exist, left there, and used again
# WALVIS_BENCH_DIR    where everything else is made and removed at the end                                      [/tmp]
# WALVIS_BIN          walvis, a release build; built if not set
# PG_BIN              directory of a server with initdb, pgbench and psql; the newest of the distribution's if not set
#
# Runs as root (the server then runs as `postgres` or `nobody`) or not. Results go to stdout, progress to stderr.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=server.sh
source "$root/benches/server.sh"
count=${WALVIS_BENCH_COUNT:-96}
say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
fail() {
    printf 'verify.sh: %s\n' "$*" >&2
    exit 1
}
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin

# ---- the repository --------------------------------------------------------------------------------------------------------

# Transactions of two sessions at once, each on its own.
load() { # number of transactions of each
    local transactions="do \$\$ declare chosen int; begin
        for n in 1..$1 loop
            chosen := 1 + random() * 999999;
            update account set balance = balance + 1, filler = md5(random()::text) || md5(random()::text) where id = chosen;
            insert into history values (n, now(), md5(random()::text));
            commit;
        end loop;
    end \$\$"
    sql "$transactions" &
    sql "$transactions"
    wait $!
}
written() { sql "select (pg_current_wal_insert_lsn() - '$begin') / 16777216"; }
make_repository() { # directory
    if [[ -z ${WALVIS_BIN:-} ]]; then
        say "building walvis (cargo build --release)"
        cargo build --release --quiet --manifest-path "$root/Cargo.toml"
        WALVIS_BIN=${CARGO_TARGET_DIR:-$root/target}/release/walvis
    fi
    [[ -x $WALVIS_BIN ]] || fail "not a program: $WALVIS_BIN"
    cp "$WALVIS_BIN" "$work/bin/walvis"
    chmod 755 "$work/bin" "$work/bin/walvis"
    mkdir -p "$1"
    chmod 755 "$1"
    [[ ${#drop[@]} -eq 0 ]] || chown "$(stat --format %U "$work")" "$1"
    cat <<TOML | as_server tee "$1/walvis.toml" >/dev/null
cluster = "bench"
spool = "off"
[[repository]]
url = "file://$1/repository"
key_file = "$1/key"
TOML
    as_server mkdir "$1/repository"
    as_server walvis key generate "$1/key" >/dev/null
    as_server walvis --config "$1/walvis.toml" init >/dev/null
    as_server initdb --pgdata "$work/data" --username postgres --auth trust --data-checksums --no-sync >/dev/null
    cat <<CONF | as_server tee -a "$work/data/postgresql.conf" >/dev/null
listen_addresses = ''
unix_socket_directories = '$work/socket'
shared_buffers = 256MB
max_wal_size = 100GB
checkpoint_timeout = 1d
autovacuum = off
fsync = off
synchronous_commit = off
archive_mode = on
archive_command = 'walvis --config $1/walvis.toml push-wal %p'
CONF
    start "$work/data" "-c wal_level=minimal -c max_wal_senders=0 -c archive_mode=off"
    sql "create table account as select id, 0 as balance, md5(random()::text) || md5(random()::text) as filler from generate_series(1, 1000000) id;
         alter table account add primary key (id); create table history (id int, at timestamptz, what text)"
    stop "$work/data"
    start "$work/data"
    local begin segment
    begin=$(sql "select pg_current_wal_insert_lsn()")
    say "writing $count segments"
    while [[ $(written | cut -d. -f1) -lt $((count / 2)) ]]; do
        sql checkpoint
        load 15000
    done
    while [[ $(written | cut -d. -f1) -lt $count ]]; do load 50000; done
    say "taking a base backup"
    as_server walvis --config "$1/walvis.toml" base-backup --pgdata "$work/data" \
        --server "host=$work/socket user=postgres dbname=postgres" --fast >&2
    segment=$(sql "select pg_walfile_name(pg_current_wal_lsn())")
    sql "select pg_switch_wal()" >/dev/null
    for ((i = 0; i < 6000; i++)); do
        [[ $(sql "select last_archived_wal >= '$segment' from pg_stat_archiver") != t ]] || break
        sleep 0.1
    done
    stop "$work/data" immediate
    # Root follows no settings that somebody else can change.
    [[ ${#drop[@]} -eq 0 ]] || chown -R root: "$1" "$work"
}

repository=${WALVIS_BENCH_KEEP:-}
if [[ -z $repository || ! -e $repository/walvis.toml ]]; then
    find_postgres
    make_work walvis-verify
    : "${repository:=$work/stored}"
    make_repository "$repository"
fi

# ---- the benchmark ---------------------------------------------------------------------------------------------------------

cat "$repository"/repository/clusters/bench/*/{wal/*/*,packs/*}/* >/dev/null # Nothing has to be read from the disk.
cd "$root"
cargo bench --quiet --bench verify -- "$@" "$repository/walvis.toml"
