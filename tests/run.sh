#!/usr/bin/env bash
# Installs what the tests need and runs all of them: format, lints, documentation, features, tests, quickstart.
#
#   tests/run.sh              everything
#   tests/run.sh ARGUMENT…    only `cargo test ARGUMENT…`, for example: tests/run.sh recovery::pg18
#
# Works as root and as an ordinary user, and can be run again and again. Tools are installed into target/test-tools; as root,
# missing programs of the system come from its package manager. A tool that cannot be had is named at the end with the way to
# get it; the tests that need it fail, all others run. Exit status 0 only when everything was run and passed.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
readonly tools=target/test-tools
mkdir -p "$tools"

# ---- what the tests need ---------------------------------------------------------------------------------------------------

missing=()

# shellcheck source=packaging/need.sh
source packaging/need.sh
want() { # package, what it is for, command…
    local package=$1 purpose=$2
    shift 2
    need "$package" "$@" || missing+=("$package, for $purpose (Debian, Ubuntu: sudo apt-get install $package)")
}

command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
if ! command -v cargo >/dev/null; then
    echo "run.sh: cargo is missing. Install Rust first: https://rustup.rs" >&2
    exit 1
fi
want build-essential "the C parts of zstd and TLS" cc --version
want strace "the tests of durability, which watch system calls" strace -V
want libfaketime "the tests of clocks that are set back" bash -c 'ls /usr/lib/*/faketime/libfaketime.so.1'
want python3-venv "the S3 server of the tests" python3 -c 'import venv, ensurepip'

if [[ $# -eq 0 ]]; then
    want git "the database of advisories, which cargo-deny clones" git --version
    bash tests/install-deny.sh "$tools/deny" || missing+=("cargo-deny (cargo install cargo-deny --locked)")
fi
bash tests/install-postgres.sh "$tools/postgres" 13 14 15 16 17 18 || missing+=("PostgreSQL, see the messages of install-postgres above")
if [[ -e tests/install-moto.sh ]]; then
    export WALVIS_TEST_MOTO=$PWD/$tools/moto
    bash tests/install-moto.sh "$tools/moto" || missing+=("moto, see the messages of install-moto above")
fi

# ---- the tests -------------------------------------------------------------------------------------------------------------

failed=()
passed=()
stage() { # name, command…
    local name=$1 begun=$SECONDS
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    if "$@"; then passed+=("$name"); else failed+=("$name"); fi
    echo "== $name: $((SECONDS - begun)) s"
}

# rustup brings these two on demand; a distribution's Rust has them in packages of their own.
component() { # component, command…
    local name=$1
    shift
    "$@" >/dev/null 2>&1 && return 0
    command -v rustup >/dev/null && rustup component add "$name" && return 0
    missing+=("$name (rustup component add $name)")
}

deny=$tools/deny/bin/cargo-deny
notes=()
# What is known to be wrong with a crate is kept on GitHub, which not every machine reaches. Nothing counts as checked that was not.
advisories() {
    if timeout 120 "$deny" fetch db; then
        stage advisories "$deny" check --disable-fetch advisories
    elif [[ -x $deny ]]; then
        notes+=("advisories not checked: the database cannot be fetched")
    fi
}

test_log=$tools/test.log
test_all() { cargo test --no-fail-fast "$@" 2>&1 | tee "$test_log"; }

if [[ $# -gt 0 ]]; then
    stage tests test_all "$@"
else
    component rustfmt cargo fmt --version
    component clippy cargo clippy --version
    stage format cargo fmt --check
    stage lints cargo clippy --all-targets -- -D warnings
    stage documentation env RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --no-deps --document-private-items
    for features in "" s3 tls; do
        stage "lints with features '$features'" cargo clippy --no-default-features --features "$features" -- -D warnings
    done
    stage dependencies "$deny" check licenses sources bans
    advisories
    stage tests test_all
    stage quickstart env "WALVIS_BIN=${CARGO_TARGET_DIR:-target}/debug/walvis" packaging/quickstart.sh
fi

# ---- what came of it -------------------------------------------------------------------------------------------------------

echo
for what in ${missing[@]+"${missing[@]}"}; do
    echo "missing: $what"
done
for what in ${notes[@]+"${notes[@]}"}; do
    echo "note: $what"
done
echo "stages passed: ${passed[*]:-none}; failed: ${failed[*]:-none}"
awk '/^test result:/ { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i - 1); if ($i ~ /^failed/) f += $(i - 1) } }
     END { printf "%d passed, %d failed\n", p, f }' "$test_log"
[[ ${#failed[@]} -eq 0 && ${#missing[@]} -eq 0 ]]
