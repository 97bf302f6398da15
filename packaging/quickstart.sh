#!/usr/bin/env bash
# Walvis in a minute: a throwaway PostgreSQL is archived and backed up, somebody deletes what they should not, and it is brought back to
# the moment before.
#
#   packaging/quickstart.sh
#
#   WALVIS_BIN    the walvis program to use; built with cargo in release mode if not set
#   PG_BIN        the directory of initdb, postgres, psql, pgbench; found or installed if not set
#
# Everything happens in one temporary directory, over a Unix socket, and is removed at the end, also on Ctrl-C. Run as root, the
# server runs as `postgres` or `nobody`. Exit status 0 only when every row came back.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=packaging/need.sh
source "$root/packaging/need.sh"

# ---- how it talks ----------------------------------------------------------------------------------------------------------

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
    bold='' dim='' green='' red='' plain=''
fi
number=0
step() {
    number=$((number + 1))
    printf '\n%s%d. %s%s\n' "$bold" "$number" "$1" "$plain"
    shift
    [[ $# -eq 0 ]] || printf '   %s\n' "$@"
}
indent() { sed "s/^/   $dim|$plain /"; }
# Prints a command as one would type it, then runs it.
show() {
    printf '   %s$ %s%s\n' "$dim" "${*//$work/.}" "$plain"
    as_server "$@" 2>&1 | indent
}
fail() {
    printf '\n%s%s%s\n' "$red" "quickstart: $1" "$plain" >&2
    if [[ -n $work && -s $work/server.log ]]; then
        echo "The end of the server's log:" >&2
        tail -n 25 "$work/server.log" | indent >&2
    fi
    exit 1
}

# ---- cleaning up -----------------------------------------------------------------------------------------------------------

work=
clean_up() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    if [[ -n $work ]]; then
        jobs -p | while read -r job; do kill "$job" 2>/dev/null || true; done
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

# ---- what it needs ---------------------------------------------------------------------------------------------------------

printf '%sWalvis quickstart%s\n' "$bold" "$plain"
printf '%s\n' "A throwaway PostgreSQL is backed up, somebody deletes what they should not, and it is brought back to the moment before."

if [[ -z ${WALVIS_BIN:-} ]]; then
    command -v cargo >/dev/null || fail "cargo is missing: install Rust (https://rustup.rs), or set WALVIS_BIN to a walvis program"
    need build-essential cc --version || fail "a C compiler is missing, which Rust links with: sudo apt-get install build-essential"
    echo "Building walvis (cargo build --release); the first time this takes a few minutes."
    cargo build --release --quiet --manifest-path "$root/Cargo.toml" --target-dir "${CARGO_TARGET_DIR:-$root/target}"
    WALVIS_BIN=${CARGO_TARGET_DIR:-$root/target}/release/walvis
fi
[[ -x $WALVIS_BIN ]] || fail "not a program: $WALVIS_BIN"

complete() { # directory: a server of version 13 or later, with its client tools?
    local tool
    for tool in initdb postgres pg_ctl psql pgbench; do
        [[ -x $1/$tool ]] || return 1
    done
    [[ $("$1/postgres" --version 2>/dev/null) =~ \ ([0-9]+)\. && ${BASH_REMATCH[1]} -ge 13 ]]
}
find_postgres() {
    local candidate candidates
    mapfile -t candidates < <(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -rV)
    for candidate in "$(dirname "$(command -v pgbench || echo /none)")" "${candidates[@]}" "$root/target/test-tools/postgres/client/bin"; do
        if complete "$candidate"; then
            PG_BIN=$candidate
            return 0
        fi
    done
    return 1
}
if [[ -n ${PG_BIN:-} ]]; then
    complete "$PG_BIN" || fail "PG_BIN=$PG_BIN has not all of initdb, postgres, pg_ctl, psql and pgbench, of version 13 or later"
elif ! find_postgres; then
    echo "No PostgreSQL here: getting one into target/test-tools."
    bash "$root/tests/install-postgres.sh" "$root/target/test-tools/postgres" client ||
        fail "no PostgreSQL to be had; install one (Debian, Ubuntu: sudo apt-get install postgresql), or set PG_BIN"
    find_postgres || fail "the installed PostgreSQL is not complete"
fi
PG_BIN=$(cd "$PG_BIN" && pwd -P)

# In /tmp: the path of a Unix socket is limited to 107 bytes, and the server's user must be able to enter.
work=$(mktemp -d /tmp/walvis-quickstart.XXXXXX)
mkdir "$work/bin"
cp "$WALVIS_BIN" "$work/bin/walvis"
chmod 755 "$work" "$work/bin" "$work/bin/walvis"

drop=()
if [[ $(id -u) -eq 0 ]]; then
    user=postgres
    id "$user" >/dev/null 2>&1 || user=nobody
    drop=(setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups)
    chown "$user" "$work"
    # Through `env`, because setpriv itself still has the rights of root when it looks up its program.
    if ! "${drop[@]}" env "$PG_BIN/postgres" --version >/dev/null 2>&1; then
        # A checkout below /root is closed to that user: bring the installation along. (PyPI's needs the directory above, too.)
        tree=${PG_BIN%/bin}
        [[ $tree != */.pypi/* ]] || tree=${tree%/.pypi/*}/.pypi
        mkdir "$work/postgres"
        cp -a "$tree/." "$work/postgres"
        PG_BIN=$work/postgres${PG_BIN#"$tree"}
    fi
fi
# Runs a program as the server's user, with the environment that the server and all its commands get.
as_server() {
    (
        cd "$work"
        # What the caller's environment may hold for other databases and repositories does not matter here.
        unset "${!PG@}" "${!WALVIS_@}"
        exec ${drop[@]+"${drop[@]}"} env HOME="$work" LC_ALL=C PATH="$work/bin:$pg_path:$PATH" \
            PGHOST="$work/socket" PGUSER=postgres PGDATABASE=postgres PGOPTIONS='-c client_min_messages=error' \
            WALVIS_REPOSITORY="file://$work/repository" WALVIS_KEY_FILE="$work/walvis.key" \
            WALVIS_SERVER="host=$work/socket user=postgres dbname=postgres" "$@"
    )
}
pg_path=$PG_BIN
sql() { as_server psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 --command "$1"; }
start() {
    as_server pg_ctl --pgdata "$work/data" --log "$work/server.log" --wait --timeout 120 --silent start >/dev/null 2>&1 || fail "the server did not start"
}
# The data directory of the server that runs.
live=data
# Asks again until the answer is `t`.
wait_until() { # query, what
    local i
    for ((i = 0; i < 1200; i++)); do
        [[ $(sql "$1" 2>/dev/null || true) != t ]] || return 0
        as_server pg_ctl --pgdata "$work/$live" status >/dev/null || fail "the server is gone, while waiting for $2"
        sleep 0.1
    done
    fail "timed out: $2"
}

printf '%s\n' "$(as_server walvis --version), $(as_server postgres --version). Everything is in $work until the end."

# ---- the story -------------------------------------------------------------------------------------------------------------

step "A key, and an encrypted repository" \
    "Without the key nobody can read what is stored, nor change it unnoticed. Keep the real one apart from your backups."
show walvis key generate "$work/walvis.key"
show walvis init

step "A database that archives through Walvis" \
    "PostgreSQL hands every finished segment of its write-ahead log to: archive_command = 'walvis push-wal %p'"
as_server initdb --pgdata "$work/data" --username postgres --auth trust --encoding UTF8 --locale C --no-sync >/dev/null
as_server mkdir "$work/socket"
as_server tee -a "$work/data/postgresql.conf" >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$work/socket'
dynamic_shared_memory_type = mmap
archive_mode = on
archive_command = 'walvis push-wal %p'
archive_timeout = 60s
restore_command = 'walvis fetch-wal %f %p'
CONF
start

step "Some data, while it archives" "pgbench fills its tables, and four clients place orders."
sql "create table orders (id bigint generated always as identity primary key, amount numeric(10, 2), placed timestamptz default clock_timestamp())"
as_server tee "$work/orders.sql" >/dev/null <<'SQL'
\set cents random(100, 100000)
insert into orders (amount) values (:cents / 100.0);
SQL
bench() {
    as_server pgbench --client 4 --jobs 2 --no-vacuum --time "$1" --builtin tpcb-like --file "$work/orders.sql" >"$work/bench.log" 2>&1 ||
        fail "pgbench: $(tail -n 3 "$work/bench.log")"
}
as_server pgbench --initialize --quiet --scale 3 >/dev/null 2>&1
bench 2
echo "   $(sql 'select count(*) from orders') orders so far."

step "A base backup of the running database" \
    "Compressed and encrypted as it is read, every page checked. It counts when all of it, and the log it needs, is stored."
bench 3 &
show walvis base-backup --label first --fast || fail "the base backup failed"
wait $! || fail "the load failed"

step "More work" "A name for the moment, before somebody cleans up: select pg_create_restore_point('before the cleanup')"
bench 1
sql "select pg_create_restore_point('before the cleanup')" >/dev/null
sql "insert into orders (amount) values (47.11), (0.99)"
report="select rpad(t, 18) || lpad(n::text, 9) || ' rows   checksum ' || left(md5(sum::text), 12) from (
          select 'orders' as t, count(*) as n, sum(hashtextextended(o::text, 0)) from orders o union all
          select 'pgbench_accounts', count(*), sum(hashtextextended(o::text, 0)) from pgbench_accounts o union all
          select 'pgbench_branches', count(*), sum(hashtextextended(o::text, 0)) from pgbench_branches o union all
          select 'pgbench_history', count(*), sum(hashtextextended(o::text, 0)) from pgbench_history o union all
          select 'pgbench_tellers', count(*), sum(hashtextextended(o::text, 0)) from pgbench_tellers o) s order by t"
latest="select 'order ' || id || '  ' || lpad(amount::text, 8) || '  ' || to_char(placed, 'YYYY-MM-DD HH24:MI:SS.US') from orders order by id desc limit 5"
sql "$report" >"$work/before"
sql "$latest" >>"$work/before"
indent <"$work/before"

step "A mistake" "Somebody forgets the WHERE, and work goes on for a while."
moment=$(sql "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00:00')")
deleted=$(sql "with gone as (delete from orders returning 1) select count(*) from gone")
printf '   %s$ DELETE FROM orders;%s   -- %s rows\n' "$dim" "$plain" "$deleted"
bench 1
echo "   $(sql 'select count(*) from orders') orders now, all of them new."

step "Is it all in the repository?" \
    "A segment is archived when it is full, or archive_timeout is over. To lose nothing now, the current one is finished early."
segment=$(sql "select pg_walfile_name(pg_current_wal_lsn())")
sql "select pg_switch_wal()" >/dev/null
wait_until "select last_archived_wal >= '$segment' from pg_stat_archiver" "segment $segment to be archived"
show walvis check || fail "walvis check found problems"
show walvis list

step "Where would it stop?" \
    "Walvis knows every commit in the archive: the last one that would be there again, and the first one that would not."
show walvis resolve --target-time "$moment" || fail "the moment before the mistake is not reachable"

step "Back to the moment before" \
    "Into a new directory; the damaged one stays for the inquest. The server is started, and waits at the target until it is there."
as_server pg_ctl --pgdata "$work/data" --mode fast --wait --timeout 120 --silent stop >/dev/null
began=$(date +%s%N)
show walvis pitr-restore --pgdata "$work/restored" --target-time "$moment" --target-action promote --start || fail "the restore failed"
printf '   Back after %d ms, restored and recovered.\n' $((($(date +%s%N) - began) / 1000000))

live=restored
step "Before the mistake, and now"
wait_until "select not pg_is_in_recovery()" "the end of recovery"
sql "$report" >"$work/after"
sql "$latest" >>"$work/after"
indent <"$work/after"
if ! diff "$work/before" "$work/after" >"$work/difference"; then
    echo "   Expected (<) and found (>):"
    indent <"$work/difference"
    fail "the recovered database differs"
fi
printf '\n%sEvery row is back, to the last commit before the mistake.%s\n' "$green$bold" "$plain"
