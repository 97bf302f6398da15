#!/usr/bin/env bash
# A relation of zeros alone, in sparse files: what a backup takes that finds nothing changed, and whether a restore makes holes of it.
#
#   benches/zeros.sh
#
#   full      a backup into an empty repository: it reads all zeros
#   idle      a backup after nothing was changed
#   restore   into an empty directory; the files must have their length, and take hardly any room
#
# WALVIS_BENCH_GIB   length of the relation in GiB                                                              [100]
# WALVIS_BENCH_DIR   where everything is made and removed at the end                                           [/tmp]
# WALVIS_BIN         walvis, a release build; built if not set
# PG_BIN             directory of a server with initdb, pgbench and psql; the newest of the distribution's if not set
#
# It needs 1 GiB on a file system with sparse files. Runs as root (the server then runs as `postgres` or `nobody`) or not. Results go to
# stdout, progress to stderr.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=server.sh
source "$root/benches/server.sh"
gib=${WALVIS_BENCH_GIB:-100}
say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
fail() {
    printf 'zeros.sh: %s\n' "$*" >&2
    exit 1
}
if [[ -z ${WALVIS_BIN:-} ]]; then
    say "building walvis (cargo build --release)"
    cargo build --release --quiet --manifest-path "$root/Cargo.toml" --target-dir "${CARGO_TARGET_DIR:-$root/target}"
    WALVIS_BIN=${CARGO_TARGET_DIR:-$root/target}/release/walvis
fi
[[ -x $WALVIS_BIN ]] || fail "not a program: $WALVIS_BIN"
python=/usr/bin/python3
[[ -x $python ]] || python=$(command -v python3) || fail "python3 is missing"
find_postgres
make_work walvis-zeros
cp "$WALVIS_BIN" "$work/bin/walvis"
chmod 755 "$work/bin" "$work/bin/walvis"

# ---- the cluster -----------------------------------------------------------------------------------------------------------

cat <<TOML | as_server tee "$work/walvis.toml" >/dev/null
cluster = "zeros"
[[repository]]
url = "file://$work/repository"
key_file = "$work/key"
TOML
as_server walvis key generate "$work/key" >/dev/null
as_server walvis --config "$work/walvis.toml" init >/dev/null
as_server initdb --pgdata "$work/data" --username postgres --auth trust --encoding UTF8 --locale C --data-checksums --no-sync >/dev/null
cat <<CONF | as_server tee -a "$work/data/postgresql.conf" >/dev/null
listen_addresses = ''
unix_socket_directories = '$work/socket'
autovacuum = off
archive_mode = on
archive_command = 'walvis --config $work/walvis.toml push-wal %p'
CONF
start "$work/data"
sql "create table zeros (i int)"
file=$(sql "select pg_relation_filepath('zeros')")
stop "$work/data"
say "making a relation of $gib GiB"
as_server truncate --size 1G "$work/data/$file"
for ((segment = 1; segment < gib; segment++)); do as_server truncate --size 1G "$work/data/$file.$segment"; done
start "$work/data"

# ---- the steps -------------------------------------------------------------------------------------------------------------

measured() { # step, command…
    local step=$1 wall cpu largest
    shift
    say "$step"
    (cd "$work" && "$python" "$root/benches/measure.py" "$work/cost" ${drop[@]+"${drop[@]}"} "${environment[@]}" \
        walvis --config "$work/walvis.toml" "$@" >"$work/log" 2>"$work/err") ||
        { tail -n 20 "$work/log" "$work/err" >&2; fail "walvis $* failed"; }
    read -r wall cpu largest _ <"$work/cost"
    printf '%-9s wall %7.2f s   CPU %7.2f s   largest process %4d MiB   %s\n' "$step" "$wall" "$cpu" $((largest / 1024)) \
        "$(grep -E '^(read|restored) ' "$work/log" || true)"
}
backup=(base-backup --pgdata "$work/data" --server "host=$work/socket user=postgres dbname=postgres" --fast)
measured full "${backup[@]}"
sql "select pg_switch_wal()" >/dev/null
measured idle "${backup[@]}"
stop "$work/data"
measured restore pitr-restore --pgdata "$work/restored" --target immediate

length=0
while read -r bytes; do length=$((length + bytes)); done < <(find "$work/restored/${file%/*}" \( -name "${file##*/}" -o -name "${file##*/}.*" \) -printf '%s\n')
[[ $length -eq $((gib << 30)) ]] || fail "the restored relation has $length bytes"
taken=$(du -sm "$work/restored" | cut -f 1)
echo "the restored directory takes $taken MiB of the disk"
[[ $taken -lt 1024 ]] || fail "the restored zeros are no holes"
start "$work/restored" "-c archive_mode=off -c recovery_target_action=promote"
[[ $(sql "select count(*) from zeros where ctid < '(1000,0)'") == 0 ]] || fail "the restored relation is not empty"
