# Guest: ext4 on the volume `disk` fills the pool, waits for space, and goes on when there is some.
#
#   full.sh PORT CURE
#
# CURE is what the host does about it: `grow`, or `remove` of the snapshot `disk@live`. Asks for `snapshot`, `free`, and
# `parked` while a file is written, then for CURE. Prints `mode MODE`, that of the pool while writes wait.

port=$1
cure=$2
. /host/nbd.sh

# require_files: they are what was written, as the device has them.
require_files() {
  echo 3 >/proc/sys/vm/drop_caches
  sums /mnt/tree | cmp - /tmp/sums
  cmp /tmp/again /mnt/again
}

step mkfs
attach nbd0 disk
mkfs.ext4 -q /dev/nbd0 >&2
mount -o noatime,noinit_itable /dev/nbd0 /mnt
step plant
plant /mnt/tree
head -c 12m /dev/urandom | dd of=/mnt/again bs=1M conv=fsync 2>/dev/null
sync
sums /mnt/tree >/tmp/sums
step snapshot
ask snapshot
# What the snapshot holds is written anew in place, so that its removal gives back what was there.
head -c 12m /dev/urandom >/tmp/again
dd if=/tmp/again of=/mnt/again bs=1M conv=notrunc,fsync 2>/dev/null
ask free
bytes=$((answer + (4 << 20)))
step "write $bytes bytes"
head -c "$bytes" /dev/urandom >/tmp/big
dd if=/tmp/big of=/mnt/big bs=1M conv=fsync 2>/dev/null &
writer=$!
ask parked
echo "mode $answer"
step parked
# It hangs; meanwhile all that was there is read. (With times of access to write, reading would hang, too.)
require_files
sleep 5
kill -0 "$writer"
step "$cure"
ask "$cure"
wait "$writer"
step written
require_files
cmp /tmp/big /mnt/big
step umount
umount /mnt
fsck.ext4 -f -n /dev/nbd0 >&2
detach nbd0
step again
attach nbd0 disk
mount /dev/nbd0 /mnt
require_files
cmp /tmp/big /mnt/big
umount /mnt
detach nbd0
# No request has failed meanwhile.
dmesg >/tmp/dmesg
fails grep 'I/O error' /tmp/dmesg >&2
step end
