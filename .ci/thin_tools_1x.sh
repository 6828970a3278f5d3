#!/bin/sh
# Unpacks thin-provisioning-tools 1.x from Debian 13 beside whatever the system has installed, for tests that
# compare with the stricter checker. Installs nothing, changes nothing of the system, needs no root.
#
#   .ci/thin_tools_1x.sh [DIR]
#
# DIR defaults to ${XDG_CACHE_HOME:-$HOME/.cache}/gossamer/thin-tools-1x. Afterwards DIR/bin holds thin_check_1x,
# thin_dump_1x and so on; the last line printed is that directory. Running it again costs nothing.
set -eu

dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/gossamer/thin-tools-1x}

fail() {
  echo "thin_tools_1x: $*" >&2
  exit 1
}

if "$dir/bin/thin_check_1x" -V >/dev/null 2>&1; then
  echo "$dir/bin"
  exit 0
fi

# Everything is made in a sibling of DIR and renamed at the end, so an interrupted run leaves no half-made DIR.
mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$(dirname "$dir")/.thin-tools-1x.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
unpacked=$("$(dirname "$0")/unpack_13.sh" "$work" thin-provisioning-tools)
loader=$(echo "$unpacked" | tail -n 2 | head -n 1)
libraries=$(echo "$unpacked" | tail -n 1)
tools=$(find "$work/tree" -name pdata_tools -type f | head -n 1)
[ -n "$tools" ] || fail "the package thin-provisioning-tools of Debian 13 holds no pdata_tools"
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
rm -rf "$dir"
mv "$work" "$dir"
echo "$dir/bin"
