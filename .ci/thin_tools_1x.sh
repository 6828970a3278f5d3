#!/bin/sh
# Unpacks thin-provisioning-tools 1.x from Debian 13 beside whatever the system has installed, for tests that
# compare with the stricter checker. Installs nothing, changes nothing of the system, needs no root.
#
#   .ci/thin_tools_1x.sh [DIR]
#
# DIR defaults to ${XDG_CACHE_HOME:-$HOME/.cache}/gossamer/thin-tools-1x. Afterwards DIR/bin holds thin_check_1x,
# thin_dump_1x and so on; the last line printed is that directory. Running it again costs nothing.
set -eu

suite=trixie
dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/gossamer/thin-tools-1x}

fail() {
  echo "thin_tools_1x: $*" >&2
  exit 1
}

if "$dir/bin/thin_check_1x" -V >/dev/null 2>&1; then
  echo "$dir/bin"
  exit 0
fi
command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1 ||
  fail "apt-get and dpkg are needed to unpack the 1.x tools; run this on Debian or one of its descendants"

# Everything is made in a sibling of DIR and renamed at the end, so an interrupted run leaves no half-made DIR.
mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$(dirname "$dir")/.thin-tools-1x.XXXXXX")
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
(cd "$work/debs" && private_apt download thin-provisioning-tools libc6 libgcc-s1 libudev1 libcap2) ||
  fail "could not download the packages of $suite"
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/tree"; done

# The tools run on their own loader and libraries, never mixed with the system's.
tools=$(find "$work/tree" -name pdata_tools -type f | head -n 1)
[ -n "$tools" ] || fail "the package thin-provisioning-tools of $suite holds no pdata_tools"
loader=$(find "$work/tree" -name 'ld-linux*.so.*' | head -n 1)
libraries=$(dirname "$(find "$work/tree" -name 'libc.so.6' | head -n 1)")
mkdir "$work/bin"
for tool in thin_check thin_delta thin_dump thin_ls thin_metadata_pack thin_metadata_size thin_metadata_unpack \
  thin_repair thin_restore thin_rmap; do
  cat >"$work/bin/${tool}_1x" <<WRAPPER
#!/bin/sh
home=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")
exec "\$home${loader#"$work"}" --library-path "\$home${libraries#"$work"}" "\$home${tools#"$work"}" $tool "\$@"
WRAPPER
  chmod 755 "$work/bin/${tool}_1x"
done
"$work/bin/thin_check_1x" -V >/dev/null || fail "the unpacked thin_check does not run on this machine"

chmod 755 "$work"
rm -rf "$work/apt" "$work/debs" "$dir"
mv "$work" "$dir"
echo "$dir/bin"
