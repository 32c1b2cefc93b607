#!/usr/bin/env bash
# Builds Flotilla and runs a local fleet. Arguments go to `flotilla up`.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install.sh redis-server nginx
binary=${CARGO_TARGET_DIR:-target}/release/flotilla
[ -x "$binary" ] || echo "The first build takes some minutes." >&2
cargo build --release --locked -p flotilla
exec "$binary" up "$@"
