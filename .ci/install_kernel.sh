#!/bin/bash
# Unpacks Debian's cloud kernel for the VM of tests/vm/vm.sh. Installs nothing, changes nothing of the system, needs no
# root; busybox-static writes the list of the modules' dependencies.
#
#   .ci/install_kernel.sh [DIR]
#
# DIR defaults to ${XDG_CACHE_HOME:-$HOME/.cache}/gossamer/kernel. Afterwards it holds boot/ and lib/modules/, and its
# path is the last line printed. Running it again costs nothing.
set -euo pipefail

dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/gossamer/kernel}
meta=linux-image-cloud-amd64

fail() {
  echo "install_kernel: $*" >&2
  exit 1
}

if [ -d "$dir/boot" ]; then
  echo "$dir"
  exit 0
fi
for program in apt-get apt-cache dpkg busybox; do
  command -v "$program" >/dev/null ||
    fail "$program is needed to unpack a kernel; run this on Debian with busybox-static installed"
done

# The meta package holds nothing but the name of the current kernel's own.
package=$(apt-cache depends --no-recommends --no-suggests "$meta" |
  sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n 1)
[ -n "$package" ] || fail "apt knows no package $meta; run apt-get update first"

# Everything is made in a sibling of DIR and renamed at the end, so an interrupted run leaves no half-made DIR.
mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$(dirname "$dir")/.kernel.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
(cd "$work" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$package") ||
  fail "could not download $package; run apt-get update first"
dpkg -x "$work/$package"_*.deb "$work/kernel"
version=$(basename "$work"/kernel/lib/modules/*)
busybox depmod -b "$work/kernel" "$version"
grep -q '/dm-thin-pool\.ko:' "$work/kernel/lib/modules/$version/modules.dep" ||
  fail "busybox depmod found no dm-thin-pool among the modules of $package"
rm -rf "$work/kernel/usr"

# Another run may have been quicker; then its result stands.
mv -T "$work/kernel" "$dir" 2>/dev/null || [ -d "$dir/boot" ] || fail "could not move the kernel to $dir"
echo "$dir"
