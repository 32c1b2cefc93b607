#!/usr/bin/env bash
# Installs the real clients that the suite drives into target/clients, in the versions of scripts/clients/.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p target
exec 9>target/clients.lock
flock 9
if ! cmp -s scripts/clients/package-lock.json target/clients/installed.json; then
    rm -rf target/clients
    mkdir -p target/clients
    cp scripts/clients/package.json scripts/clients/package-lock.json target/clients/
    npm ci --prefix target/clients --ignore-scripts --no-audit --no-fund
    cp scripts/clients/package-lock.json target/clients/installed.json
fi
