# Guest: loses power with ext4 of the volume `disk` mounted and being written.
#
#   cut_power.sh PORT
#
# Prints the sums of a tree, then `durable COUNT`.

port=$1
. /host/nbd.sh

prepare_connections
step mkfs
attach nbd0 disk -C 2
mkfs.ext4 -q /dev/nbd0 >&2
mount /dev/nbd0 /mnt
plant /mnt/tree
sync
sums /mnt/tree
step write
start_writing /mnt/numbered
await_durable 20
echo "durable $durable"
cut_power
