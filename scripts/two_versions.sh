#!/usr/bin/env bash
# The core of the suite by a fleet of two builds: of what is here, and of another commit. Replicas take turns.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
[ $# = 1 ] || { echo "which commit? make versions OLD=<commit>" >&2; exit 2; }

scripts/install.sh redis-server nginx git
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
other=$target/other-version
rm -rf "$other/source"
git worktree prune
git worktree add --force --detach "$other/source" "$1"
trap 'git worktree remove --force "$other/source"' EXIT
CARGO_TARGET_DIR=$other/target cargo build --locked --manifest-path "$other/source/Cargo.toml" -p flotilla
cargo build --locked -p flotilla

suite=(abort commands compaction concurrency edits events faults idempotency prompt queue rolling_restart sessions takeover
    tasks tools)
FLOTILLA_OTHER_BIN=$other/target/debug/flotilla cargo test --locked -p suite "${suite[@]/#/--test=}"
