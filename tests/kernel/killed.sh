# Guest: the server is killed under the volume `disk` with a mounted ext4 on it, comes back, and is attached again.
#
#   killed.sh PORT [OPTION OF nbd-client]...
#
# Asks for `kill` while files are written, and for `serve` when that has happened. Prints `durable COUNT`.

port=$1
shift
. /host/nbd.sh

prepare_connections
step mkfs
attach nbd0 disk "$@"
mkfs.ext4 -q /dev/nbd0 >&2
mount /dev/nbd0 /mnt
plant /mnt/tree
sync
sums /mnt/tree >/tmp/sums
step write
start_writing /mnt/numbered
await_durable 20
ask kill
sleep 2
step killed
durable=$(cat /tmp/durable)
echo "durable $durable"
ask serve
sleep 2
step serve
# The server is there again, and the device stays dead. What was under way when it died waits for ever on a single
# connection, the writer with it, until the device is detached.
fails dd if=/dev/nbd0 of=/tmp/block bs=4096 count=1 skip=9999 iflag=direct
nbd-client -d /dev/nbd0 >&2
fails wait "$writer"
[ "$(cat /tmp/durable)" = "$durable" ]
step umount
umount /mnt
until_gone nbd0
step again
attach nbd0 disk "$@"
mount /dev/nbd0 /mnt
dmesg | grep 'nbd0.*recovery complete' >&2
sums /mnt/tree | cmp - /tmp/sums
require_numbered /mnt/numbered "$durable"
umount /mnt
step fsck
fsck.ext4 -fn /dev/nbd0 >&2
detach nbd0
step end
