# Guest: the server runs here too, from /host/gossamer, and is attached over its Unix socket.

. /host/nbd.sh

export DENO_DIR=/host/deno NO_COLOR=1 DENO_NO_UPDATE_CHECK=1
gossamer="deno run --cached-only -A /host/gossamer/cli.ts --pool /tmp/pool"

step serve
$gossamer serve --data-size 512M --create disk=256M >/tmp/addresses 2>/tmp/log &
server=$!
until grep -q unix /tmp/addresses; do
  kill -0 "$server" || { cat /tmp/log >&2 && exit 1; }
  sleep 0.5
done
step attach
nbd-client -unix /tmp/pool/nbd.sock -N disk /dev/nbd0 >&2
until_ready nbd0
mkfs.ext4 -q /dev/nbd0 >&2
mount /dev/nbd0 /mnt
plant /mnt/tree
sync
sums /mnt/tree >/tmp/sums
umount /mnt
fsck.ext4 -fn /dev/nbd0 >&2
detach nbd0
step again
nbd-client -unix /tmp/pool/nbd.sock -N disk -C 2 /dev/nbd0 >&2
until_ready nbd0
mount /dev/nbd0 /mnt
sums /mnt/tree | cmp - /tmp/sums
umount /mnt
detach nbd0
step stop
kill "$server"
wait "$server"
cat /tmp/log >&2
$gossamer check >&2
grep -c 'nbd.sock attached to "disk"' /tmp/log
step end
