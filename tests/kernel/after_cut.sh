# Guest: the volume `disk` as `cut_power.sh` left it.
#
#   after_cut.sh PORT COUNT
#
# Requires that the files 1 to COUNT are there. Prints the sums of the tree.

port=$1
count=$2
. /host/nbd.sh

attach nbd0 disk
mount /dev/nbd0 /mnt
dmesg | grep 'nbd0.*recovery complete' >&2
sums /mnt/tree
require_numbered /mnt/numbered "$count"
umount /mnt
step fsck
fsck.ext4 -fn /dev/nbd0 >&2
detach nbd0
step end
