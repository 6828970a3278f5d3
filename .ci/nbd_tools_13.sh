#!/bin/sh
# Unpacks the NBD clients of Debian 13 beside whatever the system has installed: libnbd 1.22, whose clients ask for
# extended headers first, and qemu 10. Installs nothing, changes nothing of the system, needs no root.
#
#   .ci/nbd_tools_13.sh [DIR]
#
# DIR defaults to ${XDG_CACHE_HOME:-$HOME/.cache}/gossamer/nbd-tools-13. Afterwards DIR/bin holds nbdinfo_13, nbdcopy_13,
# nbdfuse_13, python_13 (which can import nbd), qemu-img_13 and so on; the last line printed is that directory. Running
# it again costs nothing.
set -eu

suite=trixie
dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/gossamer/nbd-tools-13}

fail() {
  echo "nbd_tools_13: $*" >&2
  exit 1
}

if "$dir/bin/nbdinfo_13" --version >/dev/null 2>&1; then
  echo "$dir/bin"
  exit 0
fi
command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1 ||
  fail "apt-get and dpkg are needed to unpack these clients; run this on Debian or one of its descendants"

# Everything is made in a sibling of DIR and renamed at the end, so an interrupted run leaves no half-made DIR.
mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$(dirname "$dir")/.nbd-tools-13.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/apt/parts" "$work/debs" "$work/tree"

# The archive is the one the system itself uses for Debian's main component.
archive=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' |
  sed -n 's/^Debian|Debian|main|//p' | head -n 1)
[ -n "$archive" ] || fail "no Debian archive among the apt sources with a downloaded index; run apt-get update first"

# Signatures are verified. A Debian 12 keyring of before mid-2024 lacks Debian 13's keys; then the newest
# debian-archive-keyring of the system's own (verified) suites is unpacked and used instead.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
if [ ! -e "/usr/share/keyrings/debian-archive-$suite-automatic.gpg" ]; then
  (cd "$work/debs" && apt-get download -qq debian-archive-keyring) ||
    fail "the keys of $suite are neither installed nor in the package debian-archive-keyring; run apt-get update first"
  dpkg -x "$work"/debs/debian-archive-keyring_*.deb "$work/tree"
  keyring=$work/tree/usr/share/keyrings/debian-archive-keyring.gpg
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
private_apt --yes --download-only --no-install-recommends install libnbd-bin python3-libnbd qemu-utils ||
  fail "could not download the packages of $suite"
for deb in "$work"/apt/cache/archives/*.deb; do dpkg -x "$deb" "$work/tree"; done

# The clients run on their own loader and libraries, never mixed with the system's. Under merged /usr the loader and the
# C library lie below usr; the names of python's folder and program are those of the suite.
loader=$(find "$work/tree" -name 'ld-linux*.so.*' -type f | head -n 1)
libraries=$(dirname "$(find "$work/tree" -name 'libc.so.6' | head -n 1)")
python=$(find "$work/tree/usr/bin" -name 'python3.*' -type f | head -n 1)
[ -n "$loader" ] && [ -n "$python" ] || fail "the packages of $suite are laid out differently than expected"
mkdir "$work/bin"
wrap() {
  cat >"$work/bin/$1" <<WRAPPER
#!/bin/sh
home=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")
$3 exec "\$home${loader#"$work"}" --library-path "\$home${libraries#"$work"}" "\$home${2#"$work"}" "\$@"
WRAPPER
  chmod 755 "$work/bin/$1"
}
for tool in nbdinfo nbdcopy nbddump nbdfuse qemu-img qemu-io qemu-nbd; do
  wrap "${tool}_13" "$work/tree/usr/bin/$tool" ""
done
# shellcheck disable=SC2016 # The wrapper expands it.
wrap python_13 "$python" \
  'PYTHONHOME="$home/tree/usr" PYTHONPATH="$home/tree/usr/lib/python3/dist-packages" PYTHONDONTWRITEBYTECODE=1'
"$work/bin/nbdinfo_13" --version >/dev/null || fail "the unpacked nbdinfo does not run on this machine"
"$work/bin/python_13" -c 'import nbd' || fail "the unpacked python3-libnbd does not run on this machine"
"$work/bin/qemu-img_13" --version >/dev/null || fail "the unpacked qemu-img does not run on this machine"

chmod 755 "$work"
# Documentation, translations and the programs of packages that only came along.
rm -rf "$work/apt" "$work/debs" "$work/tree/usr/share" "$work/tree/var" "$work/tree/etc" "$dir"
mv "$work" "$dir"
echo "$dir/bin"
