#!/bin/bash
# Runs a shell script on a real Linux kernel: boots Debian's cloud kernel in a throw-away QEMU without hardware
# acceleration, so it needs no root, no /dev/kvm and no module on the host.
#
#   vm.sh [OPTION]... GUEST_SCRIPT [ARG]...
#
#   --drive FILE      the guest's next disk, raw: the first is /dev/vda, the next /dev/vdb (may be repeated)
#   --module NAME     load this kernel module and what it needs (may be repeated)
#   --bin PROGRAM     put this program of the host and its libraries on the guest's PATH (may be repeated)
#   --files DIR       copy this folder to /host
#   --network         the host's loopback answers as 10.0.2.2
#   --stdin           our stdin arrives at the guest, which reads it with `ask` (default: nothing does)
#   --cpus N          the guest's processors (default 1)
#   --memory MIB      the guest's memory (default 320)
#   --limit SECONDS   kill the VM after that time (default 120)
#   --console FILE    where the kernel's log and the script's stderr go (default: shown only when the script fails)
#
# The script runs as busybox ash, with every applet of busybox on PATH; tests/vm/init.sh says what else it finds there.
# Its stdout becomes ours. Exit status: the script's own; 125 the VM ended without one (a panic, the time limit);
# 126 the VM could not be started.
set -euo pipefail

fail() {
  echo "vm.sh: $*" >&2
  exit 126
}

drives=() modules=() programs=() files='' network='' input='' cpus=1 memory=320 limit=120 console=''
while [ $# -gt 0 ]; do
  case $1 in
    --network) network=yes && shift && continue ;;
    --stdin) input=yes && shift && continue ;;
    --*) [ $# -ge 2 ] || fail "$1 wants a value" ;;
    *) break ;;
  esac
  case $1 in
    --drive) drives+=("$2") ;;
    --module) modules+=("$2") ;;
    --bin) programs+=("$2") ;;
    --files) files=$2 ;;
    --cpus) cpus=$2 ;;
    --memory) memory=$2 ;;
    --limit) limit=$2 ;;
    --console) console=$2 ;;
    *) fail "unknown option $1" ;;
  esac
  shift 2
done
[ $# -ge 1 ] && [ -r "$1" ] || fail "the first argument is a script that can be read"
script=$1
shift

PATH=$PATH:/usr/sbin:/sbin
for program in qemu-system-x86_64 busybox cpio ldd timeout; do
  command -v "$program" >/dev/null || fail "$program is not installed; .ci/run installs everything"
done
kernel=${XDG_CACHE_HOME:-$HOME/.cache}/gossamer/kernel
[ -d "$kernel/boot" ] || fail "there is no kernel in $kernel; run .ci/install_kernel.sh"
version=$(basename "$kernel"/lib/modules/*)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

work=$(mktemp -d "${TMPDIR:-/tmp}/gossamer-vm.XXXXXX")
qemu=''
clean_up() {
  # Only `timeout` is ours to wait for; it takes QEMU down with itself.
  if [ -n "$qemu" ]; then kill "$qemu" 2>/dev/null && wait "$qemu" || true; fi
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 125' INT TERM HUP

# --- The guest's root file system, all of it in the initramfs.

root=$work/root
mkdir -p "$root"/{bin,sbin,dev,proc,sys,tmp,run,mnt,etc,host} "$root/lib/modules/$version"
cp "$(command -v busybox)" "$root/bin/busybox"
ldd "$root/bin/busybox" >/dev/null 2>&1 && fail "busybox is linked to libraries; the package busybox-static is wanted"
cp "$here/init.sh" "$root/init"
cp "$script" "$root/guest-script"
if [ -n "$files" ]; then cp -R "$files"/. "$root/host/"; fi

for program in "${programs[@]}"; do
  path=$(command -v "$program") || fail "the guest wants $program, which is not installed"
  cp -L "$path" "$root/sbin/$(basename "$path")"
  # Libraries stay where the program's loader looks for them.
  ldd "$path" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -Lu "$library" "$root$library"
  done
done
if [ -e /etc/mke2fs.conf ]; then cp /etc/mke2fs.conf "$root/etc/"; fi

module_tree=lib/modules/$version
copy_module() {
  local line file
  # Names are written with either separator; the files use both.
  line=$(grep -E "/${1//[-_]/[-_]}\.ko:" "$kernel/$module_tree/modules.dep") || line=''
  if [ -z "$line" ]; then
    grep -qE "/${1//[-_]/[-_]}\.ko$" "$kernel/$module_tree/modules.builtin" && return
    fail "the kernel $version has no module $1"
  fi
  for file in ${line/:/}; do
    mkdir -p "$root/$module_tree/$(dirname "$file")"
    cp -u "$kernel/$module_tree/$file" "$root/$module_tree/$file"
  done
}
if [ ${#drives[@]} -gt 0 ]; then modules=(virtio_pci virtio_blk "${modules[@]}"); fi
if [ -n "$network" ]; then modules=(virtio_pci virtio_net "${modules[@]}"); fi
for module in "${modules[@]}"; do copy_module "$module"; done
cp "$kernel/$module_tree/modules.dep" "$kernel/$module_tree/modules.builtin" "$root/$module_tree/"
{
  echo "vm_modules='${modules[*]}' vm_network='$network'"
  echo "set -- ${*@Q}"
} >"$root/vm-settings"
chmod 755 "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) >"$work/initramfs"

# --- The machine: the console on ttyS0, the script's stdout on ttyS1, its status on ttyS2.

disks=()
for i in "${!drives[@]}"; do
  # A comma inside a value of QEMU's is written twice.
  disks+=(-drive "file=${drives[i]//,/,,},if=none,id=disk$i,format=raw,cache=writeback,discard=unmap"
    -device "virtio-blk-pci,drive=disk$i")
done
net=()
if [ -n "$network" ]; then net=(-netdev user,id=net0 -device virtio-net-pci,netdev=net0,romfile=); fi
if [ -n "$input" ]; then exec 3<&0; else exec 3</dev/null; fi
: >"$work/status" >"$work/console"
timeout -k 5 "$limit" qemu-system-x86_64 -accel tcg -smp "$cpus" -m "$memory" -nodefaults -no-user-config -display none -no-reboot \
  -kernel "$kernel/boot/vmlinuz-$version" -initrd "$work/initramfs" \
  -append "console=ttyS0 quiet loglevel=4 panic=-1 tsc=unstable" \
  -serial "file:$work/console" -serial stdio -serial "file:$work/status" \
  "${disks[@]}" "${net[@]}" <&3 &
qemu=$!
ended=0
wait "$qemu" || ended=$?
qemu=''

status=$(tr -dc '0-9' <"$work/status")
if [ -n "$console" ]; then
  cp "$work/console" "$console"
elif [ "$status" != 0 ]; then
  tail -n 40 "$work/console" >&2
fi
if [ -z "$status" ]; then
  # QEMU's own message, of a drive that it cannot open for instance, is already on stderr.
  [ "$ended" -eq 1 ] && fail "QEMU did not start"
  [ "$ended" -eq 124 ] && echo "vm.sh: the time limit of $limit seconds ended the VM" >&2
  echo "vm.sh: the VM ended without a status of the guest's script (QEMU: $ended)" >&2
  exit 125
fi
exit "$status"
