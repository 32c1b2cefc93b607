#!/usr/bin/env bash
# Installs the Debian packages of the programs that are missing: scripts/install.sh redis-server nginx ...
#
# As root, or by sudo; without either it prints the line to run and ends with 1. The services that Debian starts for what
# was installed here are stopped: a fleet and the tests start their own.
set -euo pipefail

# Debian keeps servers where not every user's PATH looks.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

missing=()
for package in "$@"; do
    program=$package
    [ "$package" = nodejs ] && program=node
    command -v "$program" >/dev/null || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
by_hand="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
if ! command -v apt-get >/dev/null; then
    echo "Missing: ${missing[*]}. Install them with the package manager of this system." >&2
    exit 1
elif [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "Missing: ${missing[*]}. Run as root: $by_hand" >&2
        exit 1
    fi
    as_root=(sudo)
fi

echo "Installing ${missing[*]}" >&2
apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Retries=3)
if ! { "${as_root[@]}" "${apt[@]}" update &&
    "${as_root[@]}" "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } >&2; then
    echo "Could not install ${missing[*]}. Run as root: $by_hand" >&2
    exit 1
fi

for package in "${missing[@]}"; do
    case $package in redis-server | nginx | haproxy) ;; *) continue ;; esac
    if [ -d /run/systemd/system ]; then
        "${as_root[@]}" systemctl disable --now --quiet "$package" || true
    else
        "${as_root[@]}" service "$package" stop >/dev/null || true
    fi
done
