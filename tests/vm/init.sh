#!/bin/busybox sh
# The first process of the guest that tests/vm/vm.sh boots: makes a small system, runs the script, powers off.
#
# A script finds: its disks as /dev/vda and on; programs of `--bin` before busybox's; the folder of `--files` in /host;
# an empty /mnt; with `--network` the host's loopback at 10.0.2.2; and three functions:
#
#   ask QUESTION...      asks the host, which answers with a line: $answer (with `--stdin` only)
#   cut_power [STATUS]   ends the machine at once, as a power cut does: nothing is flushed
#   note TEXT...         a line for the console, not for stdout

/bin/busybox --install -s /bin
# Real mke2fs and friends come before busybox's smaller ones.
export PATH=/sbin:/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
ln -s /proc/mounts /etc/mtab

# What is written to these must not gain carriage returns, and what comes in must not go out again.
stty raw -echo -F /dev/ttyS1
stty raw -F /dev/ttyS2

note() { echo "$*" >/dev/ttyS0; }

ask() {
  echo "? $*" >/dev/ttyS1
  read -r answer </dev/ttyS1
}

cut_power() {
  echo "${1:-0}" >/dev/ttyS2
  sleep 0.2
  echo b >/proc/sysrq-trigger
  sleep 60
}

. /vm-settings
for module in $vm_modules; do
  case $module in
    nbd) modprobe nbd nbds_max=4 ;;
    *) modprobe "$module" ;;
  esac || note "modprobe $module failed"
done
ip link set lo up
if [ -n "$vm_network" ]; then
  ip link set eth0 up
  ip addr add 10.0.2.15/24 dev eth0
  ip route add default via 10.0.2.2
fi

(. /guest-script) </dev/null >/dev/ttyS1 2>/dev/ttyS0
echo $? >/dev/ttyS2
sync
poweroff -f
