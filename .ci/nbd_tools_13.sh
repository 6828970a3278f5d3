#!/bin/sh
# Unpacks the NBD clients of Debian 13 beside whatever the system has installed: libnbd 1.22, whose clients ask for
# extended headers first, and qemu 10. Installs nothing, changes nothing of the system, needs no root.
#
#   .ci/nbd_tools_13.sh [DIR]
#
# DIR defaults to ${XDG_CACHE_HOME:-$HOME/.cache}/gossamer/nbd-tools-13. Afterwards DIR/bin holds nbdinfo_13, nbdcopy_13,
# qemu-img_13 and so on, and python_13, which can import nbd; the last line printed is that directory. Running it again
# costs nothing.
set -eu

dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/gossamer/nbd-tools-13}

fail() {
  echo "nbd_tools_13: $*" >&2
  exit 1
}

if "$dir/bin/nbdinfo_13" --version >/dev/null 2>&1; then
  echo "$dir/bin"
  exit 0
fi

# Everything is made in a sibling of DIR and renamed at the end, so an interrupted run leaves no half-made DIR.
mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$(dirname "$dir")/.nbd-tools-13.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
unpacked=$("$(dirname "$0")/unpack_13.sh" "$work" libnbd-bin python3-libnbd qemu-utils)
loader=$(echo "$unpacked" | tail -n 2 | head -n 1)
libraries=$(echo "$unpacked" | tail -n 1)
python=$(find "$work/tree/usr/bin" -name 'python3.*' -type f | head -n 1)
[ -n "$python" ] || fail "the packages hold no python"

mkdir "$work/bin"
# wrap NAME PROGRAM ENVIRONMENT
wrap() {
  cat >"$work/bin/$1" <<WRAPPER
#!/bin/sh
home=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")
$3 exec "\$home${loader#"$work"}" --library-path "\$home${libraries#"$work"}" "\$home${2#"$work"}" "\$@"
WRAPPER
  chmod 755 "$work/bin/$1"
}
for tool in nbdinfo nbdcopy nbddump qemu-img qemu-io qemu-nbd; do
  wrap "${tool}_13" "$work/tree/usr/bin/$tool" ""
done
# shellcheck disable=SC2016 # The wrapper expands it.
wrap python_13 "$python" \
  'PYTHONHOME="$home/tree/usr" PYTHONPATH="$home/tree/usr/lib/python3/dist-packages" PYTHONDONTWRITEBYTECODE=1'
"$work/bin/nbdinfo_13" --version >/dev/null || fail "the unpacked nbdinfo does not run on this machine"
"$work/bin/python_13" -c 'import nbd' || fail "the unpacked python3-libnbd does not run on this machine"
"$work/bin/qemu-img_13" --version >/dev/null || fail "the unpacked qemu-img does not run on this machine"

chmod 755 "$work"
# Documentation, translations and settings of packages that only came along.
rm -rf "$work/tree/usr/share" "$work/tree/var" "$work/tree/etc" "$dir"
mv "$work" "$dir"
echo "$dir/bin"
