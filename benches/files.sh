#!/usr/bin/env bash
# What backups of a cluster with very many files store: Walvis, and an earlier one beside it.
#
#   benches/files.sh [FILES]        116000 if not said
#
# Takes a first backup, one after nothing happened, and one after a single file changed, each into a repository of its own, and prints
# what each stored: new content, and the manifest. Sizes, not times: they are the same on every machine.
#
# WALVIS_BENCH_DIR       where everything is made and removed at the end                                       [/tmp]
# WALVIS_BIN             walvis, a release build; built if not set
# WALVIS_BEFORE_BIN      an earlier walvis, measured besides
# PG_BIN                 directory of a server; the newest of the distribution's if not set
#
# It needs 4 KiB of disk for each file, and as many inodes. Runs as root (the server then runs as `postgres` or `nobody`) or not.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=server.sh
source "$root/benches/server.sh"
files=${1:-116000}
fail() {
    printf 'files.sh: %s\n' "$*" >&2
    exit 1
}
[[ $files =~ ^[0-9]+$ ]] || fail "no number of files: $files"
if [[ -z ${WALVIS_BIN:-} ]]; then
    cargo build --release --quiet --manifest-path "$root/Cargo.toml" --target-dir "${CARGO_TARGET_DIR:-$root/target}"
    WALVIS_BIN=${CARGO_TARGET_DIR:-$root/target}/release/walvis
fi
python=/usr/bin/python3
[[ -x $python ]] || python=$(command -v python3) || fail "python3 is missing"
find_postgres
make_work walvis-files
(($(df --output=avail -k "$work" | tail -n 1) > files * 5 + 1000000)) || fail "$work has not enough room for $files files"
tools=(walvis)
cp "$WALVIS_BIN" "$work/bin/walvis"
if [[ -n ${WALVIS_BEFORE_BIN:-} ]]; then
    cp "$WALVIS_BEFORE_BIN" "$work/bin/before"
    tools+=(before)
fi

as_server initdb --pgdata "$work/data" --username postgres --auth trust --no-sync >/dev/null
printf '%s\n' "unix_socket_directories = '$work/socket'" "listen_addresses = ''" "fsync = off" "autovacuum = off" "archive_mode = on" \
    "archive_command = 'for tool in ${tools[*]}; do \$tool --config $work/\$tool.toml push-wal %p || exit 1; done'" |
    as_server tee -a "$work/data/postgresql.conf" >/dev/null
as_server "$python" - "$work/data" "$files" <<'PYTHON'
import os, sys
data, files = sys.argv[1], int(sys.argv[2])
for number in range(files):
    directory = f"{data}/base/9{number // 1000:05}"
    if number % 1000 == 0:
        os.mkdir(directory, 0o700)
    with open(f"{directory}/{number}", "wb") as file:
        file.write(os.urandom(40))
PYTHON
for tool in "${tools[@]}"; do
    as_server "$tool" key generate "$work/$tool.key" >/dev/null
    printf 'cluster = "bench"\n[[repository]]\nurl = "file://%s"\nkey_file = "%s"\n' "$work/$tool" "$work/$tool.key" |
        as_server tee "$work/$tool.toml" >/dev/null
    as_server "$tool" --config "$work/$tool.toml" init >/dev/null
done
start "$work/data"

backup() { # tool, what it is
    as_server "$1" --config "$work/$1.toml" --json base-backup --fast --server "host=$work/socket" |
        "$python" -c '
import json, sys
report = json.load(sys.stdin)
new, manifest = report["new_bytes"], report["manifest_bytes"]
print("%-8s %-12s %8d files  %10d B new  %9d B manifest  %10d B stored" % (*sys.argv[1:], report["files"], new, manifest, new + manifest))' "$1" "$2"
}
for tool in "${tools[@]}"; do
    backup "$tool" first
    backup "$tool" idle
    printf changed | as_server tee "$work/data/base/900000/7" >/dev/null
    backup "$tool" "one changed"
done
stop "$work/data"
