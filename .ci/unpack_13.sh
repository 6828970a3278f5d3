#!/bin/sh
# Unpacks packages of Debian 13, with everything that they depend on, into a folder: for the scripts beside this one.
# Installs nothing, changes nothing of the system, needs no root.
#
#   .ci/unpack_13.sh FOLDER PACKAGE...
#
# FOLDER must be there; what the packages hold comes below FOLDER/tree. The last two lines printed are the loader and the
# folder of the C library, both with FOLDER before them: programs run on these, never mixed with the system's.
set -eu

suite=trixie
work=$1
shift

fail() {
  echo "unpack_13: $*" >&2
  exit 1
}

command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1 ||
  fail "apt-get and dpkg are needed to unpack $*; run this on Debian or one of its descendants"
mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/apt/parts" "$work/tree"

# The archive is the one the system itself uses for Debian's main component.
archive=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' |
  sed -n 's/^Debian|Debian|main|//p' | head -n 1)
[ -n "$archive" ] || fail "no Debian archive among the apt sources with a downloaded index; run apt-get update first"

# Signatures are verified. A Debian 12 keyring of before mid-2024 lacks Debian 13's keys; then the newest
# debian-archive-keyring of the system's own (verified) suites is unpacked and used instead.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
if [ ! -e "/usr/share/keyrings/debian-archive-$suite-automatic.gpg" ]; then
  (cd "$work/apt" && apt-get download -qq debian-archive-keyring) ||
    fail "the keys of $suite are neither installed nor in the package debian-archive-keyring; run apt-get update first"
  dpkg -x "$work"/apt/debian-archive-keyring_*.deb "$work/apt/keyring"
  keyring=$work/apt/keyring/usr/share/keyrings/debian-archive-keyring.gpg
fi

echo "deb [signed-by=$keyring] $archive $suite main" >"$work/apt/sources.list"
: >"$work/apt/status"
private_apt() {
  apt-get -qq \
    -o Dir::Etc::SourceList="$work/apt/sources.list" -o Dir::Etc::SourceParts="$work/apt/parts" \
    -o Dir::State="$work/apt" -o Dir::State::Lists="$work/apt/lists" -o Dir::State::status="$work/apt/status" \
    -o Dir::Cache="$work/apt/cache" -o APT::Sandbox::User="$(id -un)" \
    -o APT::Update::Pre-Invoke= -o APT::Update::Post-Invoke-Success= -o Acquire::Languages=none "$@"
}
private_apt update || fail "could not read the index of $suite from the system's Debian archive"
# As nothing counts as installed, apt itself names and fetches every library; it installs none of them.
private_apt --yes --download-only --no-install-recommends install "$@" >&2 ||
  fail "could not download the packages of $suite"
for deb in "$work"/apt/cache/archives/*.deb; do dpkg -x "$deb" "$work/tree"; done
rm -rf "$work/apt"

find "$work/tree" -name 'ld-linux*.so.*' -type f | head -n 1
dirname "$(find "$work/tree" -name 'libc.so.6' | head -n 1)"
