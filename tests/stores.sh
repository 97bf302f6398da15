#!/usr/bin/env bash
# Runs the conformance suite and `init`, push, fetch and `check` against real S3 servers, as far as they can be installed here.
#
#   tests/stores.sh              all of them
#   tests/stores.sh NAME…        some: rclone versitygw s3rver minio
#
# Not part of continuous integration: it takes ten minutes to build them, and `tests/it/store_s3/stores.rs` answers as they do.
# s3rver fails the suite, as it should: it lists `a-b/c` before or after `a.b` as its directories come, not in the order of the names.
#
# Needs go (rclone, versitygw, minio) and npm (s3rver); what is installed stays in target/test-tools/stores.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
tools=$PWD/target/test-tools/stores
mkdir -p "$tools"
began=$SECONDS
passed=() failed=() missing=()
work=$(mktemp -d)
server=
stop() {
    [[ -n $server ]] && kill "$server" 2>/dev/null && wait "$server" 2>/dev/null
    server=
}
trap 'stop; rm -rf "$work"' EXIT

go_install() { # program, package
    [[ -x $tools/$1 ]] || GOBIN=$tools go install "$2"
}

# Each says how to get it and how to start it on $port with the bucket walvis-test and $key and $secret.
rclone_install() {
    [[ -x $tools/rclone ]] && return
    # Only what is needed of it: the local backend and the S3 server.
    local source=$tools/rclone-source
    mkdir -p "$source" && (
        cd "$source" || exit 1
        cat >main.go <<'GO'
package main

import (
	_ "github.com/rclone/rclone/backend/local"
	"github.com/rclone/rclone/cmd"
	_ "github.com/rclone/rclone/cmd/serve"
	_ "github.com/rclone/rclone/cmd/serve/s3"
)

func main() { cmd.Main() }
GO
        [[ -e go.mod ]] || go mod init rclone-s3
        go get github.com/rclone/rclone@latest && go mod tidy && go build -o "$tools/rclone" .
    )
}
rclone_start() { exec "$tools/rclone" serve s3 --auth-key "$key,$secret" --addr "127.0.0.1:$port" "$work/data"; }
versitygw_install() { go_install versitygw github.com/versity/versitygw/cmd/versitygw@latest; }
versitygw_start() { exec env ROOT_ACCESS_KEY="$key" ROOT_SECRET_KEY="$secret" "$tools/versitygw" --port "127.0.0.1:$port" posix "$work/data"; }
s3rver_install() { [[ -x $tools/node_modules/.bin/s3rver ]] || npm install --prefix "$tools" s3rver; }
s3rver_start() { exec "$tools/node_modules/.bin/s3rver" -d "$work/s3rver" -p "$port" --configure-bucket walvis-test; }
minio_install() { go_install minio github.com/minio/minio@latest; }
minio_start() { exec env MINIO_ROOT_USER="$key" MINIO_ROOT_PASSWORD="$secret" "$tools/minio" server --address "127.0.0.1:$port" "$work/data"; }

try() { # name
    local name=$1 port=$((20000 + RANDOM % 10000)) key=WALVISKEY secret=walvis-secret
    rm -rf "$work/data" "$work/s3rver" && mkdir -p "$work/data/walvis-test" "$work/s3rver"
    [[ $name == s3rver ]] && key=S3RVER secret=S3RVER # it takes no others
    if ! "${name}_install" >"$tools/$name.log" 2>&1; then
        missing+=("$name (see $tools/$name.log)")
        return
    fi
    "${name}_start" >"$work/$name.log" 2>&1 &
    server=$!
    local tries=0
    until (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        ((++tries < 100)) && kill -0 "$server" 2>/dev/null || { failed+=("$name (it does not start: $(tail -1 "$work/$name.log"))"); return; }
        sleep 0.1
    done
    local env=(AWS_ACCESS_KEY_ID="$key" AWS_SECRET_ACCESS_KEY="$secret" AWS_REGION=us-east-1 AWS_EC2_METADATA_DISABLED=true)
    # What `init` finds out about create-if-absent is what the suite is run with.
    local walvis=(env "${env[@]}" WALVIS_S3_ENDPOINT="http://127.0.0.1:$port" WALVIS_S3_PATH_STYLE=true WALVIS_REPOSITORY=s3://walvis-test/repository
        WALVIS_KEY_FILE="$work/$name.key" WALVIS_SPOOL=off target/debug/walvis)
    local init conditional=true
    if ! { "${walvis[@]}" key generate "$work/$name.key" >"$work/out" 2>&1 && init=$("${walvis[@]}" init 2>"$work/out"); }; then
        failed+=("$name (init: $(tail -2 "$work/out" | tr '\n' ' '))")
        stop
        return
    fi
    [[ $init == *claims/* ]] && conditional=false
    "${walvis[@]}" check --no-server
    if env "${env[@]}" WALVIS_TEST_S3_URL=s3://walvis-test/suite WALVIS_TEST_S3_ENDPOINT="http://127.0.0.1:$port" \
        WALVIS_TEST_S3_CONDITIONAL=$conditional cargo test --test it -- store_s3::suite::named_by_the_environment; then
        passed+=("$name (create-if-absent: $([[ $conditional == true ]] && echo store || echo claims))")
    else
        failed+=("$name (the suite)")
    fi
    stop
}

cargo build && cargo test --test it --no-run || exit 1
[[ $# -gt 0 ]] || set -- rclone versitygw s3rver minio
for name in "$@"; do
    printf '\n== %s\n' "$name"
    try "$name"
done
echo
printf 'passed: %s\n' "${passed[@]:-none}"
for what in ${failed[@]+"${failed[@]}"}; do echo "FAILED: $what"; done
for what in ${missing[@]+"${missing[@]}"}; do echo "cannot be had here: $what"; done
echo "stores.sh: $(((SECONDS - began) / 60)) minutes"
[[ ${#failed[@]} -eq 0 ]]
