#!/usr/bin/env bash
# Drains a real archiver's backlog and feeds a real recovery, through Walvis and whichever peers are installed, and prints a table.
#
#   benches/archive.sh [--segments N] [--segment-mib MIB] [--rounds R] [--delay-ms MS] [--tools LIST] [--stores LIST] [--out FILE] [--work DIR]
#
#   --segment-mib  size of a WAL segment, as of `initdb --wal-segsize` [16]: with 1024, 6 segments are a backlog of 6 GiB
#   --segments   WAL segments in the backlog, made with pgbench [100]; barman-cloud, which takes a second for each, gets 15
#   --rounds     each combination is run so often, in turn, so that all see the same weather [2]; the table has the best of each figure
#   --delay-ms   what every S3 request waits before it is served [30]
#   --tools      walvis,before,pgbackrest,walrus,barman,cp [those found, but for before]
#   --stores     file,s3 [both]
#   --out        where the raw output goes too [none]
#   --work       scratch directory, 20 MiB per segment of 16 and more [a new one in TMPDIR]
#
#   WALVIS_BEFORE_BIN  an earlier Walvis, which is the tool `before`
#   WALVIS_BIN   the program [target/release/walvis, built]; WALRUS_BIN, BARMAN_BIN (a directory), PG_BIN, PGBACKREST_BIN
#                where these are not on the PATH. A peer that is not found is left out and named.
#
# Needs PostgreSQL (Debian: postgresql), python3, cargo for the S3 server and the limit. As root the server and all tools run as `postgres`.
# Everything happens in the scratch directory, which is removed at the end.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
target=${CARGO_TARGET_DIR:-$root/target}
# Cargo prints where the program of a bench is.
bench() { cargo bench --no-run --bench "$1" 2>&1 | sed -n "s/.*Executable.*(\(.*\/$1-[0-9a-f]*\)).*/\1/p"; }
BENCH_LIMIT=$(bench limit)
BENCH_S3=$(bench s3_server)
# After these: they leave a program there that is linked for a quick build.
[[ -n ${WALVIS_BIN:-} ]] || cargo build --release --quiet
export WALVIS_BIN=${WALVIS_BIN:-$target/release/walvis} BENCH_LIMIT BENCH_S3
exec python3 benches/archive.py "$@"
