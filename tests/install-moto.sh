#!/bin/sh
# Installs moto (an S3 server with object lock and access control) into a virtual environment: tests/install-moto.sh DIR
# PYTHON names another interpreter than python3. Does nothing when that version is there already.
set -eu

version=5.2.5
dir=${1:?usage: tests/install-moto.sh DIR}
mark=$dir/.moto-$version

[ -e "$mark" ] && exit 0
rm -rf "$dir"
"${PYTHON:-python3}" -m venv "$dir"
"$dir/bin/pip" install --quiet --disable-pip-version-check "moto[server]==$version"
touch "$mark"
