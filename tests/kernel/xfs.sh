# Guest: the volume `disk` attached, with XFS on it.
#
#   xfs.sh PORT
#
# Asks for `mapped`, and for `snapshot` and `clone` while files are written. Prints `mapped WHEN BYTES`.

port=$1
. /host/nbd.sh

step mkfs
attach nbd0 disk
mkfs.xfs -q /dev/nbd0 >&2
mount /dev/nbd0 /mnt
step plant
plant /mnt/tree
sync
sums /mnt/tree >/tmp/sums
tell_mapped before
step big
head -c 32m /dev/urandom | dd of=/mnt/big bs=1M conv=fsync 2>/dev/null
trim_back /mnt/big
snapshot_amid_writes /mnt/numbered
umount /mnt
step check
xfs_repair -n /dev/nbd0 >&2
detach nbd0
step again
attach nbd0 disk
mount /dev/nbd0 /mnt
sums /mnt/tree | cmp - /tmp/sums
require_numbered /mnt/numbered $((before + 10))
# The snapshot has the same UUID, which XFS does not mount twice by itself.
step fork
ask clone
mkdir /tmp/fork
attach nbd1 fork
mount -o nouuid /dev/nbd1 /tmp/fork
dmesg | grep 'nbd1.*Ending recovery' >&2
sums /tmp/fork/tree | cmp - /tmp/sums
require_numbered /tmp/fork/numbered "$before"
umount /tmp/fork
xfs_repair -n /dev/nbd1 >&2
detach nbd1
umount /mnt
detach nbd0
step end
