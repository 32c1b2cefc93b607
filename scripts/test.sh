#!/usr/bin/env bash
# All that continuous integration runs. It installs what it needs.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

scripts/install.sh redis-server nginx haproxy faketime git openssl tmux nodejs npm
scripts/clients.sh

set -x
cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings
cargo test --workspace --locked

# The run above had three replicas; the same HTTP suite again with one, and without Redis.
suite=(abort auth bad_requests commands compaction concurrency dispose edits events files fork idempotency more_tools prompt provider_errors
    queue revert sessions shell snapshots takeover tasks tools)
for mode in one embedded; do
    FLOTILLA_TEST_MODE=$mode cargo test --locked -p suite "${suite[@]/#/--test=}"
done
# Of the recordings those of permissions, aborts, queues and flows of sessions; all of them take as long as with three.
FLOTILLA_TEST_MODE=one FLOTILLA_TEST_RECORDINGS=3,4,5 cargo test --locked -p suite --test=recordings recordings_of
