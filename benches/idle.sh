#!/usr/bin/env bash
# How often helpers wake up that have nothing to do, and how many system calls they make for each segment of a backlog.
#
#   benches/idle.sh
#
# A throwaway server leaves segments that wait to be archived. Then, for each program in turns:
#   push    the helper under `strace -c` pushes them, while this script renames what is on record to `.done`, as the server does
#   fetch   the helper has fetched all that it may ahead of a recovery that asks for nothing: its voluntary context switches (those of
#           all its threads) and its CPU time while it waits
#   idle    the same of a push helper that waits for the archiver
#
# WALVIS_BENCH_COUNT   segments, of 1 MiB each; at least 100                                                     [300]
# WALVIS_BENCH_ROUNDS  rounds                                                                                      [2]
# WALVIS_BENCH_DIR     where everything is made and removed at the end                                          [/tmp]
# WALVIS_BIN           walvis; a release build, built if not set
# WALVIS_BEFORE_BIN    an earlier walvis, to compare with
# PG_BIN               directory of a server with initdb, pgbench and psql; the newest of the distribution's if not set
#
# Needs strace. Runs as root (the server then runs as `postgres` or `nobody`) or not. Results go to stdout, progress to stderr.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=server.sh
source "$root/benches/server.sh"
count=${WALVIS_BENCH_COUNT:-300}
rounds=${WALVIS_BENCH_ROUNDS:-2}
say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
fail() {
    printf 'idle.sh: %s\n' "$*" >&2
    exit 1
}
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
command -v strace >/dev/null || fail "no strace: sudo apt-get install strace"
find_postgres
if [[ -z ${WALVIS_BIN:-} ]]; then
    (cd "$root" && cargo build --release --quiet)
    WALVIS_BIN=${CARGO_TARGET_DIR:-$root/target}/release/walvis
fi
make_work walvis-idle
cp "$WALVIS_BIN" "$work/bin/walvis"
programs=(walvis)
if [[ -n ${WALVIS_BEFORE_BIN:-} ]]; then
    cp "$WALVIS_BEFORE_BIN" "$work/bin/before"
    programs=(before walvis)
fi
chmod 755 "$work"/bin/*

say "making $count segments"
as_server initdb --pgdata "$work/data" --auth trust --username postgres --wal-segsize=1 >"$work/initdb.log"
cat >>"$work/data/postgresql.conf" <<END
listen_addresses = ''
unix_socket_directories = '$work/socket'
archive_mode = on
archive_command = 'false'
max_wal_size = 100GB
fsync = off
END
start "$work/data"
sql "create table filler (n int, body text)"
for ((n = 0; n < count; n++)); do
    printf 'insert into filler select %d, md5(g::text) from generate_series(1, 300) g;\nselect pg_switch_wal();\n' "$n"
done | as_server psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 >"$work/made"
stop "$work/data"
rm -f "$work/data/standby.signal"
pg_wal=$work/data/pg_wal
mapfile -t names < <(cd "$pg_wal/archive_status" && printf '%s\n' *.ready | grep -E '^[0-9A-F]{24}\.ready$' | sed 's/\.ready$//' | sort | head -n "$count")
paths=("${names[@]/#/pg_wal/}")
((${#names[@]} >= 100)) || fail "the server left only ${#names[@]} segments"

# ---- one program -----------------------------------------------------------------------------------------------------------

in_data() { (cd "$work/data" && exec ${drop[@]+"${drop[@]}"} "${environment[@]}" WALVIS_REPOSITORY="file://$work/repository" WALVIS_KEY_FILE="$work/key" "$@"); }
as_helper() { in_data WALVIS_HELPER=1 MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=2097152 "$@"; }

# Only these wait to be archived.
begin() { # names
    as_server rm -rf "$work/repository" "$work/key" "$pg_wal/walvis"
    as_server find "$pg_wal/archive_status" -type f -delete
    as_server mkdir -m 700 "$pg_wal/walvis" "$pg_wal/walvis/pushed" "$pg_wal/walvis/fetched"
    in_data "$program" key generate "$work/key" >/dev/null
    in_data "$program" init >/dev/null
    printf '%s.ready\n' "$@" | as_server sh -c "cd '$pg_wal/archive_status' && xargs touch"
}
await() { # what, command
    local what=$1 tries
    shift
    for ((tries = 0; tries < 6000; tries++)); do
        ! "$@" || return 0
        sleep 0.01
    done
    fail "$what: not within a minute"
}
# The helper of a command: its name says where it works.
helper_of() { pgrep -f "^walvis in $work/data $1 --ahead" | tail -n 1; }
switches() { cat /proc/"$1"/task/*/status | awk '/^voluntary_ctxt_switches/ { sum += $2 } END { print sum }'; }
ticks() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }

# Wakes per second and CPU of a process over some seconds.
measure_idle() { # what, pid, seconds
    local before after cpu
    sleep 0.2
    before=$(switches "$2") cpu=$(ticks "$2")
    sleep "$3"
    after=$(switches "$2") cpu=$(($(ticks "$2") - cpu))
    ((after >= before)) || { printf '%-8s %-26s ended before it was measured: the machine is too busy\n' "$program" "$1"; return 0; }
    awk -v p="$program" -v w="$1" -v n=$((after - before)) -v s="$3" -v c="$cpu" -v hz="$(getconf CLK_TCK)" \
        'BEGIN { printf "%-8s %-26s %8.1f wakes/s   %5.2f %% of a core\n", p, w, n / s, 100 * c / hz / s }'
}

measure_push() {
    local helper name calls archived
    begin "${names[@]}"
    # strace looks after its own: as the user of the helper.
    as_helper strace -f -c -S calls -o "$work/calls" "$program" push-wal --ahead "pg_wal/${names[0]}" 2>/dev/null &
    helper=$!
    archived=0
    for name in "${names[@]}"; do
        # The first one is that of the call.
        [[ $name == "${names[0]}" ]] || await "a record of $name" test -e "$pg_wal/walvis/pushed/$name"
        mv "$pg_wal/archive_status/$name.ready" "$pg_wal/archive_status/$name.done"
        archived=$((archived + 1))
    done
    wait "$helper"
    calls=$(awk '$NF == "total" { print $4 }' "$work/calls")
    awk -v p="$program" -v c="$calls" -v n=$((archived - 1)) 'BEGIN { printf "%-8s %-26s %8.1f system calls per segment\n", p, "push", c / n }'
    awk -v n=$((archived - 1)) '$1 ~ /^[0-9.]+$/ && $NF != "total" && shown++ < 8 { printf "%s %.1f  ", $NF, $4 / n } END { print "" }' "$work/calls" |
        sed 's/^/         /'
}

measure_fetch() {
    local pid
    begin "${names[@]:0:40}"
    in_data WALVIS_SPOOL=off "$program" push-wal "${paths[@]:0:40}" >/dev/null
    as_server touch "$work/data/recovery.signal"
    in_data "$program" fetch-wal "${names[0]}" pg_wal/RECOVERYXLOG
    await "16 segments ahead" test -e "$pg_wal/walvis/fetched/${names[16]}.ok"
    pid=$(helper_of fetch-wal)
    measure_idle "fetch, nothing asked" "$pid" 10
    as_server rm "$work/data/recovery.signal"
    await "the end of the helper" test ! -e "/proc/$pid"
    as_server rm -f "$pg_wal/RECOVERYXLOG"
}

measure_push_idle() {
    local pid
    begin "${names[@]:0:100}"
    in_data "$program" push-wal "pg_wal/${names[0]}" >/dev/null
    await "64 records" test -e "$pg_wal/walvis/pushed/${names[63]}"
    pid=$(helper_of push-wal)
    measure_idle "push, nothing archived" "$pid" 2
    await "the end of the helper" test ! -e "/proc/$pid"
}

for ((round = 1; round <= rounds; round++)); do
    for program in "${programs[@]}"; do
        say "round $round: $program"
        measure_push
        measure_fetch
        measure_push_idle
    done
done
