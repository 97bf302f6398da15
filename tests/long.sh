#!/usr/bin/env bash
# Runs the tests that take longer than continuous integration has.
#
#   tests/long.sh              all of them
#   tests/long.sh FILTER       only those whose path has this in it
#   tests/long.sh --list       says which there are and how long each takes, and runs none
#
# Such a test is marked #[ignore = "long: about N min"], and its name begins with long_. Here each runs by itself, with the time it took, so
# that what the mark says can be kept right. Run tests/run.sh first: it installs what they need.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The path of each test, and what its mark says.
tests() {
    find tests/it -name '*.rs' -print0 | sort -z | xargs -0 awk '
        FNR == 1 { module = FILENAME; sub(/^tests\/it\//, "", module); sub(/(\/mod)?\.rs$/, "", module); gsub(/\//, "::", module) }
        /#\[ignore = "long/ { mark = $0; sub(/.*"long:? */, "", mark); sub(/".*/, "", mark); marked = 1 }
        marked && /^ *(pub )?fn long_/ { name = $0; sub(/.*fn /, "", name); sub(/\(.*/, "", name); print module "::" name "\t" mark; marked = 0 }'
}

filter=
[ "${1:-}" = --list ] || filter=${1:-}
found=$(tests | grep -F -- "$filter" || true)
if [ -z "$found" ]; then
    if [ -z "$filter" ]; then echo "there are no long tests"; exit 0; fi
    echo "long.sh: no long test has '$filter' in its path; tests/long.sh --list shows them" >&2
    exit 2
fi
echo "$found" | while IFS=$'\t' read -r path mark; do printf '%-70s %s\n' "$path" "${mark:-no time is known}"; done
[ "${1:-}" != --list ] || exit 0

began=$SECONDS
failed=()
while IFS=$'\t' read -r path _; do
    since=$SECONDS
    outcome=passed
    cargo test --quiet --test it -- --ignored --exact "$path" </dev/null || { outcome=FAILED; failed+=("$path"); }
    printf '%s %s after %d min %d s\n' "$path" "$outcome" $(((SECONDS - since) / 60)) $(((SECONDS - since) % 60))
done <<<"$found"
echo "long.sh: $(((SECONDS - began) / 60)) minutes, ${#failed[@]} failed ${failed[*]-}"
[ ${#failed[@]} -eq 0 ]
