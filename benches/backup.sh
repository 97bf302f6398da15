#!/usr/bin/env bash
# Base backups and restores of one PostgreSQL cluster by Walvis and by pgBackRest or an earlier Walvis, side by side in one run.
#
#   benches/backup.sh
#
# Per round, each into a repository made for it, in the order of tools that the round has (it is turned round each time):
#
#   full      a backup into an empty repository
#   second    a backup after 1 % of the rows of every table were changed
#   idle      a backup after nothing was changed
#   restore   the last backup into an empty directory, with nothing of the repository in memory (as root only); then the server is started on it and all tables are compared
#   disk      for Walvis: what `dd` takes to read as many bytes of its packs as the restore did, and to write as many as it restored, both at once and past the page cache
#
# At the end stands how near the restore came to the larger of that and of its own CPU time, spread over all cores.
#
# Both compress with zstd level 3, encrypt (Walvis: ChaCha20-Poly1305, pgBackRest: aes-256-cbc), verify page checksums, use the same number
# of processes or threads, and wait for the WAL of the backup, which the server's archiver hands to both of them. pgBackRest has
# bundling and block incrementals on. It is the distribution's package; as root a missing one is installed.
#
# WALVIS_BENCH_MB        size of the cluster in MiB                                                            [4096]
# WALVIS_BENCH_NOISE     per cent of it that does not compress; half of the rest is pgbench's tables, which are
#                        mostly blanks, half is text that compresses about 3 times                               [50]
# WALVIS_BENCH_CHANGE    which rows change: `together` (all rows of one page in a hundred, at random),
#                        `scattered` (one row in a hundred, at random: in every second page) or `extents`
#                        (all rows of the first hundredth of each table: one extent in a hundred)          [together]
# WALVIS_BENCH_ROUNDS    rounds                                                                                   [2]
# WALVIS_BENCH_JOBS      threads or processes of a backup, and of a restore by others than Walvis   [number of cores]
# WALVIS_BENCH_RESTORE_JOBS  threads of a restore by Walvis; 0: as many as it takes by itself                   [0]
# WALVIS_BENCH_TOOLS     the tools, of walvis, before, pgbackrest                                 [walvis pgbackrest]
# WALVIS_BENCH_PLAIN     1: no encryption in either                                                               [0]
# WALVIS_BENCH_TIGHT     1: the cluster is deleted before the restore, for a disk that has no room for both; only with
#                        one tool and one round                                                                   [0]
# WALVIS_BENCH_DIR       where everything is made and removed at the end                                       [/tmp]
# WALVIS_BIN             walvis, a release build; built if not set
# WALVIS_BEFORE_BIN      an earlier walvis, which is the tool `before`
# PG_BIN                 directory of a server with initdb, pgbench and psql; the newest of the distribution's if not set
#
# It needs 2.5 to 3 times the size of the cluster on disk. Runs as root (the server then runs as `postgres` or `nobody`) or not. Results
# go to stdout, progress to stderr. Exit status 0 only when every restored table was the same as the original.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=../packaging/need.sh
source "$root/packaging/need.sh"
# shellcheck source=server.sh
source "$root/benches/server.sh"

size_mib=${WALVIS_BENCH_MB:-4096}
noise=${WALVIS_BENCH_NOISE:-50}
change=${WALVIS_BENCH_CHANGE:-together}
rounds=${WALVIS_BENCH_ROUNDS:-2}
jobs=${WALVIS_BENCH_JOBS:-$(nproc)}
restore_jobs=${WALVIS_BENCH_RESTORE_JOBS:-0}
plain=${WALVIS_BENCH_PLAIN:-0}
tight=${WALVIS_BENCH_TIGHT:-0}
read -ra tools <<<"${WALVIS_BENCH_TOOLS:-walvis pgbackrest}"

say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
fail() {
    printf 'backup.sh: %s\n' "$*" >&2
    exit 1
}
[[ $change == together || $change == scattered || $change == extents ]] ||
    fail "WALVIS_BENCH_CHANGE is neither together, scattered nor extents: $change"
[[ $tight != 1 || (${#tools[@]} -eq 1 && $rounds -eq 1) ]] || fail "WALVIS_BENCH_TIGHT=1 needs one tool and one round"

# ---- what it needs ---------------------------------------------------------------------------------------------------------

uses() { [[ " ${tools[*]} " == *" $1 "* ]]; }
if [[ -z ${WALVIS_BIN:-} ]]; then
    say "building walvis (cargo build --release)"
    cargo build --release --quiet --manifest-path "$root/Cargo.toml" --target-dir "${CARGO_TARGET_DIR:-$root/target}"
    WALVIS_BIN=${CARGO_TARGET_DIR:-$root/target}/release/walvis
fi
[[ -x $WALVIS_BIN ]] || fail "not a program: $WALVIS_BIN"
[[ $WALVIS_BIN != */debug/* ]] || say "warning: $WALVIS_BIN is a debug build: its figures mean nothing"
if uses pgbackrest; then
    need pgbackrest pgbackrest version >&2 || fail "pgBackRest is missing: sudo apt-get install pgbackrest"
fi
python=/usr/bin/python3
[[ -x $python ]] || python=$(command -v python3) || fail "python3 is missing"
find_postgres
make_work walvis-bench
cp "$WALVIS_BIN" "$work/bin/walvis"
if uses before; then
    [[ -x ${WALVIS_BEFORE_BIN:-} ]] || fail "the tool 'before' needs WALVIS_BEFORE_BIN, the path of an earlier walvis"
    cp "$WALVIS_BEFORE_BIN" "$work/bin/before"
fi
chmod 755 "$work/bin" "$work/bin/"*
environment+=(PGBACKREST_CONFIG="$work/pgbackrest.conf")
write() { as_server tee "$work/$1" >/dev/null; }

# ---- the cluster -----------------------------------------------------------------------------------------------------------

# pgbench has 15 MiB per 1 of its scale, with the index; 7 rows of noise fill a page; 5300 orders a MiB.
make_cluster() {
    local noise_mib=$((size_mib * noise / 100)) orders_mib scale
    orders_mib=$(((size_mib - noise_mib) / 2))
    scale=$(((size_mib - noise_mib) / 2 / 15))
    say "making a cluster of $size_mib MiB: pgbench at scale $scale, $orders_mib MiB of text, $noise_mib MiB of noise"
    as_server initdb --pgdata "$work/data" --username postgres --auth trust --encoding UTF8 --locale C --data-checksums --no-sync >/dev/null
    cat <<CONF | as_server tee -a "$work/data/postgresql.conf" >/dev/null
listen_addresses = ''
unix_socket_directories = '$work/socket'
shared_buffers = 256MB
max_wal_size = 4GB
checkpoint_timeout = 1h
autovacuum = off
fsync = off
archive_mode = on
archive_command = '$(archive_command)'
log_line_prefix = '%m [%p] '
CONF
    # Without WAL for what is loaded into a table of the same transaction.
    start "$work/data" "-c wal_level=minimal -c max_wal_senders=0 -c archive_mode=off"
    sql "create table noise (id int, data bytea); alter table noise alter data set storage external"
    as_server pgbench --initialize --quiet --init-steps=dtgp --scale "$((scale > 0 ? scale : 1))" >/dev/null 2>&1
    [[ $noise_mib -eq 0 ]] || "$python" - $((noise_mib * 128 * 7)) <<'PYTHON' | as_server psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --file - >&2
import os, sys
out = sys.stdout
out.write("begin; truncate noise; copy noise from stdin (freeze);\n")
for row in range(int(sys.argv[1])):
    out.write(f"{row}\t\\\\x{os.urandom(1100).hex()}\n")
out.write("\\.\ncommit;\n")
PYTHON
    sql "create table orders as
           select id, timestamptz '2026-01-01' + id * interval '7 seconds' as placed,
             (array['new', 'paid', 'packed', 'sent', 'returned'])[1 + (random() * 4)::int] as state,
             'Customer ' || (random() * 1e6)::int || ' of ' || (array['Amsterdam', 'Berlin', 'Lisbon', 'Oslo'])[1 + (random() * 3)::int]
               || ', ' || (random() * 20)::int || ' pieces at ' || round((random() * 100)::numeric, 2) as words,
             md5(random()::text) as token
           from generate_series(1, $orders_mib * 5300) id"
    sql "checkpoint"
    stop "$work/data"
    start "$work/data"
}
archive_command() {
    local commands=()
    ! uses walvis || commands+=("walvis --config $work/walvis.toml push-wal %p")
    ! uses before || commands+=("before --config $work/before.toml push-wal %p")
    ! uses pgbackrest || commands+=("pgbackrest --stanza=bench archive-push %p")
    local command all=
    for command in "${commands[@]}"; do all+="${all:+ && }$command"; done
    printf '%s' "$all"
}
# 1 % of the rows of every table.
change_rows() { # round
    local table pages first which
    for table in pgbench_accounts orders noise; do
        case $change in
            scattered) which="(hashtext(ctid::text || '/$1')::bigint + 2147483648) % 100 = 0" ;;
            together) which="(hashtext((ctid::text::point)[0]::text || '/$1')::bigint + 2147483648) % 100 = 0" ;;
            extents)
                pages=$(sql "select pg_relation_size('$table') / 8192 / 100")
                first=$(($1 * pages / 8 * 8))
                which="ctid >= '($first,0)' and ctid < '($((first + pages)),0)'"
                ;;
        esac
        case $table in
            pgbench_accounts) sql "update $table set abalance = abalance + 1 where $which" ;;
            orders) sql "update $table set state = 'gone' where $which" ;;
            noise) sql "update $table set id = -id where $which" ;;
        esac
    done
    sql "checkpoint"
}
tables() {
    local table
    for table in pgbench_accounts orders noise; do
        sql "select '$table', count(*), sum(hashtextextended(t::text, 0)) from $table t"
    done
}
# Everything so far is archived, so that a backup only waits for its own WAL.
settle() {
    local segment
    segment=$(sql "select pg_walfile_name(pg_current_wal_lsn())")
    sql "select pg_switch_wal()" >/dev/null
    for ((i = 0; i < 6000; i++)); do
        [[ $(sql "select last_archived_wal >= '$segment' from pg_stat_archiver") != t ]] || break
        sleep 0.1
    done
    [[ $i -lt 6000 ]] || fail "the archiver does not get to $segment"
    sync
}

# ---- the tools -------------------------------------------------------------------------------------------------------------

# An earlier Walvis is called as this one is, under another name.
make_walvis() { # its name
    local name=${1:-walvis}
    rm -rf "${work:?}/$name"
    as_server mkdir "$work/$name"
    write "$name.toml" <<TOML
cluster = "bench"
$(! uses before || echo 'spool = "off" # Two programs would share one.')
[[repository]]
url = "file://$work/$name/repository"
$([[ $plain == 1 ]] || echo "key_file = \"$work/$name/key\"")
compression_level = 3
TOML
    [[ $plain == 1 ]] || as_server "$name" key generate "$work/$name/key" >/dev/null
    as_server "$name" --config "$work/$name.toml" init $([[ $plain != 1 ]] || echo --unencrypted) >/dev/null
}
backup_walvis() { # step, name
    local name=${2:-walvis}
    measured "$1" "$name" --config "$work/$name.toml" base-backup --pgdata "$work/data" \
        --server "host=$work/socket user=postgres dbname=postgres" --fast --jobs "$jobs"
}
restore_walvis() {
    local name=${1:-walvis} threads=()
    [[ $restore_jobs -eq 0 ]] || threads=(--jobs "$restore_jobs")
    measured restore "$name" --config "$work/$name.toml" --json pitr-restore --pgdata "$work/restored" --target immediate \
        ${threads[@]+"${threads[@]}"}
}
# Moves as many bytes as the last restore did, in streams of their own: one each way for each core.
disk_limit() {
    local read_bytes written_bytes stream begun streams=() source=$work/limit/source
    read -r read_bytes written_bytes < <("$python" -c '
import json, sys
restored = json.load(open(sys.argv[1]))["restored"]
print(restored["read_bytes"], restored["bytes"] - restored["zero_bytes"])' "$work/restore.json")
    say "round $round: dd, $((read_bytes >> 20)) MiB read and $((written_bytes >> 20)) MiB written"
    mkdir "$work/limit"
    # Noise, so that no disk can make less of it.
    head -c 32M /dev/urandom >"$source"
    find "$work/walvis/repository" -path '*/packs/*' -type f -size +8M | sort >"$work/limit/packs"
    sync
    begun=$(date +%s%N)
    for ((stream = 0; stream < $(nproc); stream++)); do
        read_stream "$stream" $((read_bytes / $(nproc))) &
        streams+=($!)
        write_stream "$stream" $((written_bytes / $(nproc))) &
        streams+=($!)
    done
    for stream in "${streams[@]}"; do wait "$stream" || fail "dd failed"; done
    sync -f "$work/limit"
    printf 'disk dd %s %s 0 0 0 0\n' "$round" "$("$python" -c 'import sys; print((int(sys.argv[2]) - int(sys.argv[1])) / 1e9)' "$begun" "$(date +%s%N)")" >>"$work/results"
    rm -rf "$work/limit"
}
read_stream() { # number, bytes
    local left=$2 pack
    while ((left > 0)); do
        # Packs are read from the beginning again where these are fewer bytes.
        while ((left > 0)) && read -r pack; do
            dd if="$pack" of=/dev/null bs=8M iflag=direct status=none
            left=$((left - $(stat --format %s "$pack")))
        done < <(awk -v n="$(nproc)" -v of="$1" 'NR % n == of' "$work/limit/packs")
    done
}
write_stream() { # number, bytes
    local number
    for ((number = 0; number <= $2 >> 25; number++)); do
        dd if="$work/limit/source" of="$work/limit/$1.$((number >> 5))" bs=8M oflag=direct conv=notrunc seek=$((number % 32 * 4)) status=none
    done
}
stored_walvis() { du -sbc "$work/${1:-walvis}"/repository/clusters/*/*/{packs,backups} | tail -n 1 | cut -f 1; }
make_before() { make_walvis before; }
backup_before() { backup_walvis "$1" before; }
restore_before() { restore_walvis before; }
stored_before() { stored_walvis before; }

# In 2.45 block incrementals are called beta, and wanted twice.
beta=
[[ $(pgbackrest version 2>/dev/null) != *\ 2.45 ]] || beta=beta=y
make_pgbackrest() {
    rm -rf "$work/pgbackrest"
    as_server mkdir "$work/pgbackrest" "$work/pgbackrest/lock" "$work/pgbackrest/spool"
    write pgbackrest.conf <<CONF
[global]
repo1-path=$work/pgbackrest/repository
repo1-bundle=y
repo1-block=y
$([[ $plain == 1 ]] || printf 'repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=%s\n' "$(head -c 48 /dev/urandom | base64 -w 0)")
$beta
compress-type=zst
compress-level=3
process-max=$jobs
start-fast=y
log-level-console=warn
log-level-file=off
lock-path=$work/pgbackrest/lock
spool-path=$work/pgbackrest/spool
[bench]
pg1-path=$work/data
pg1-socket-path=$work/socket
pg1-user=postgres
CONF
    as_server pgbackrest --stanza=bench stanza-create
}
backup_pgbackrest() {
    local kind=incr
    [[ $1 != full ]] || kind=full
    measured "$1" pgbackrest --stanza=bench --type=$kind backup
}
restore_pgbackrest() {
    as_server mkdir -m 700 "$work/restored"
    measured restore pgbackrest --stanza=bench --pg1-path="$work/restored" --type=immediate restore
}
stored_pgbackrest() { du -sb "$work/pgbackrest/repository/backup" | cut -f 1; }

# Runs a command of the tool under way, and keeps what it cost.
measured() { # step, command…
    local step=$1
    shift
    say "round $round: $tool $step"
    (cd "$work" && "$python" "$root/benches/measure.py" "$work/cost" ${drop[@]+"${drop[@]}"} "${environment[@]}" "$@" >"$work/tool.log" 2>"$work/tool.err") ||
        { tail -n 20 "$work/tool.log" "$work/tool.err" >&2; fail "$tool failed: $*"; }
    grep '^read ' "$work/tool.log" >&2 || true # What Walvis says of it.
    [[ $step != restore ]] || cp "$work/tool.log" "$work/restore.json"
    local stored=0
    [[ $step == restore ]] || stored=$(("$(stored_"$tool")" - ${before[$tool]:-0}))
    before[$tool]=$((${before[$tool]:-0} + stored))
    printf '%s %s %s %s %s\n' "$step" "$tool" "$round" "$(cat "$work/cost")" "$stored" >>"$work/results"
}

# ---- the rounds ------------------------------------------------------------------------------------------------------------

# The restored server must hold what the original held.
compare() {
    start "$work/restored" "-c archive_mode=off -c recovery_target_action=promote"
    tables >"$work/found"
    stop "$work/restored"
    diff "$work/expected" "$work/found" >&2 || fail "$tool restored something else"
}

# pgBackRest asks for the stanza's repository whenever it archives: both exist before the server does.
declare -A before=()
tool=walvis
make_configuration() {
    for tool in "${tools[@]}"; do
        [[ $tool == pgbackrest ]] || "make_$tool"
    done
}
make_configuration
make_cluster
for ((round = 1; round <= rounds; round++)); do
    before=()
    order=("${tools[@]}")
    if ((round % 2 == 0)); then
        mapfile -t order < <(printf '%s\n' "${tools[@]}" | tac)
    fi
    for tool in "${order[@]}"; do "make_$tool"; done
    settle
    cat "$work/data"/base/*/* >/dev/null # Everybody finds it in memory.
    for tool in "${order[@]}"; do "backup_$tool" full; sync; done
    say "round $round: changing rows"
    change_rows "$round"
    settle
    for tool in "${order[@]}"; do "backup_$tool" second; sync; done
    for tool in "${order[@]}"; do "backup_$tool" idle; sync; done
    tables >"$work/expected"
    stop "$work/data"
    [[ $tight != 1 ]] || rm -rf "$work/data"
    for tool in "${order[@]}"; do
        # As on a new host: nothing of the repository is in memory.
        [[ $(id -u) -ne 0 ]] || echo 3 >/proc/sys/vm/drop_caches
        "restore_$tool"
        compare
        rm -rf "$work/restored"
        sync
        [[ $tool != walvis ]] || disk_limit
    done
    [[ $round -eq $rounds ]] || start "$work/data"
done

# ---- the table -------------------------------------------------------------------------------------------------------------

"$python" - "$work/results" "$size_mib" "$noise" "$change" "$jobs" "$plain" "$(nproc)" "$("$work/bin/walvis" --version)" \
    "$(pgbackrest version 2>/dev/null || true)" "$("$PG_BIN/postgres" --version)" <<'PYTHON'
import sys
path, size, noise, change, jobs, plain, cores, *versions = sys.argv[1:]
print(f"{', '.join(v for v in versions if v)}; {size} MiB, {noise} % of it incompressible; {jobs} jobs; zstd 3; "
      f"{'not encrypted' if plain == '1' else 'encrypted'}; change: 1 % of the rows, {change}")
results = {}
for line in open(path):
    step, tool, _, *numbers = line.split()
    results.setdefault(step, {}).setdefault(tool, []).append([float(n) for n in numbers])
disk = min((row[0] for row in results.pop("disk", {}).get("dd", [])), default=None)
names = ["wall s", "CPU s", "MiB largest", "MiB together", "MiB stored"]
scale = [1, 1, 1 / 1024, 1 / 1024, 1 / (1 << 20)]
print(f"{'':<9}{'':<12}" + "".join(f"{name:>14}" for name in names))
for step, tools in results.items():
    # The best of the rounds of each figure: other work on the machine can only add.
    best = {tool: [min(column) * s for column, s in zip(zip(*rows), scale)] for tool, rows in tools.items()}
    for tool, row in best.items():
        print(f"{step:<9}{tool:<12}" + "".join(f"{value:>14.2f}" for value in row))
    if len(best) == 2:
        ours, theirs = best.pop("walvis"), next(iter(best.values()))
        ratio = [t / o if o > 0 else float("nan") for o, t in zip(ours, theirs)]
        print(f"{step:<9}{'ratio':<12}" + "".join(f"{'–' if r != r else format(r, '.2f') + '×':>14}" for r in ratio))
if disk is not None:
    rows = results["restore"]["walvis"]
    wall, cpu = min(row[0] for row in rows), min(row[1] for row in rows) / int(cores)
    print(f"limit of the restore: disk {disk:.2f} s (dd, both ways at once), CPU {cpu:.2f} s on all {cores} cores; "
          f"it reaches {max(disk, cpu) / wall:.2f} of the larger")
print("ratio: the other tool's figure divided by Walvis's; of each figure the best of all rounds. together: sampled, shared memory counted once")
PYTHON
