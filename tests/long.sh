#!/usr/bin/env bash
# Runs the tests that take longer than continuous integration has: those whose names begin with `long_` and that are marked `#[ignore = "long"]`.
#
#   tests/long.sh              all of them
#   tests/long.sh FILTER       only those whose path has this in it
#
# It says how long it took. Run tests/run.sh first: it installs what they need.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
began=$SECONDS
status=0
cargo test --test it -- --ignored "${1:-::long_}" || status=$?
echo "long.sh: $(((SECONDS - began) / 60)) minutes"
exit "$status"
