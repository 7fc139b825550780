#!/usr/bin/env bash
# Installs etcd and etcdctl from Debian and prints the folder that holds them. 3.4 comes from the machine's own suite, 3.5 from a newer one,
# unpacked beside it (never installed over the system). Usage: .ci/etcd.sh [folder]; default folder: .cache/etcd below the checkout.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-$top/.cache/etcd}
mkdir -p "$dir"

# A private apt configuration: the newer suites never become visible to the machine's own apt.
fetch() { # suite version-folder
  local suite=$1 out=$dir/$2 root=$dir/apt-$1
  [ -x "$out/etcd" ] && [ -x "$out/etcdctl" ] && return 0
  mkdir -p "$root/lists/partial" "$root/cache/archives/partial" "$root/deb" "$out"
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian %s main\n' "$suite" > "$root/sources.list"
  local opts=(-o "Dir::Etc::SourceList=$root/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$root/lists"
    -o "Dir::Cache=$root/cache" -o APT::Sandbox::User=root -o Acquire::Retries=3)
  apt-get "${opts[@]}" -qq update
  (cd "$root/deb" && apt-get "${opts[@]}" -qq download etcd-server etcd-client)
  for deb in "$root"/deb/*.deb; do dpkg-deb -x "$deb" "$root/unpacked"; done
  cp "$root/unpacked/usr/bin/etcd" "$root/unpacked/usr/bin/etcdctl" "$out/"
  rm -rf "$root"
  "$out/etcd" --version >/dev/null
}

fetch bookworm 3.4
# The newest 3.5 is the primary oracle: it has behaviours that 3.5.16 had not yet (negative start revisions of a watch).
fetch sid 3.5 || fetch trixie 3.5 || echo "etcd 3.5 could not be installed; 3.4 is the oracle of this run" >&2
for v in 3.4 3.5; do
  if [ -x "$dir/$v/etcd" ]; then printf '%s: %s\n' "$v" "$("$dir/$v/etcd" --version | head -1)" >&2; fi
done
echo "$dir"
