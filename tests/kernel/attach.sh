# Guest: the volume `disk` attached over two connections, with ext4 on it.
#
#   attach.sh PORT
#
# Asks for `mapped`, and for `snapshot` and `clone` while files are written. Prints `mapped WHEN BYTES`.

port=$1
. /host/nbd.sh

step attach
prepare_connections
attach nbd0 disk -C 2
# One queue for each connection, one processor for each queue.
grep -H . /sys/block/nbd0/mq/*/cpu_list >&2
[ "$(cat /sys/block/nbd0/mq/0/cpu_list /sys/block/nbd0/mq/1/cpu_list | tr '\n' ' ')" = "0 1 " ]
step mkfs
mkfs.ext4 -q /dev/nbd0 >&2
step mount
mount -o noinit_itable /dev/nbd0 /mnt
step plant
plant /mnt/tree
sync
step sums
sums /mnt/tree >/tmp/sums
head -c 16m /dev/urandom >/tmp/big
tell_mapped before
step big
# Each processor has its connection.
taskset 1 dd if=/tmp/big of=/mnt/big1 bs=1M conv=fsync 2>/dev/null
taskset 2 dd if=/tmp/big of=/mnt/big2 bs=1M conv=fsync 2>/dev/null
trim_back /mnt/big1 /mnt/big2
snapshot_amid_writes /mnt/numbered
step "umount, $before"
umount /mnt
step fsck
fsck.ext4 -fn /dev/nbd0 >&2
detach nbd0
step again
attach nbd0 disk
mount /dev/nbd0 /mnt
sums /mnt/tree | cmp - /tmp/sums
require_numbered /mnt/numbered $((before + 10))
umount /mnt
detach nbd0
step fork
attach nbd1 disk@live
[ "$(blockdev --getro /dev/nbd1)" = 1 ]
detach nbd1
ask clone
attach nbd1 fork
mount /dev/nbd1 /mnt
dmesg | grep -q 'nbd1.*recovery complete'
sums /mnt/tree | cmp - /tmp/sums
require_numbered /mnt/numbered "$before"
umount /mnt
fsck.ext4 -fn /dev/nbd1 >&2
detach nbd1
step end
