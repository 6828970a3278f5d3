# Guest: the server runs here too, from /host/gossamer. Lines with sudo are those of the README, word for word.

. /host/nbd.sh

# Only the count at the end is for the host.
exec 3>&1 >&2
export DENO_DIR=/host/deno NO_COLOR=1 DENO_NO_UPDATE_CHECK=1
gossamer="deno run --cached-only -A /host/gossamer/cli.ts --pool /tmp/pool"
sudo() { "$@"; }

# serve OPTION...
serve() {
  step serve
  rm -f /tmp/addresses
  $gossamer serve "$@" >/tmp/addresses 2>>/tmp/log &
  server=$!
  until [ -s /tmp/addresses ] && grep -q unix /tmp/addresses; do
    kill -0 "$server" || { cat /tmp/log && exit 1; }
    sleep 0.5
  done
}

require_tree() { sums /mnt/tree | cmp - /tmp/sums; }

cd /tmp
serve --data-size 512M --create disk0=256M
step TCP
sudo modprobe nbd && sudo nbd-client -N disk0 127.0.0.1 10809 /dev/nbd0
mkfs.ext4 -q /dev/nbd0
mount /dev/nbd0 /mnt
plant /mnt/tree
sync
sums /mnt/tree >/tmp/sums
sudo umount /mnt && sudo nbd-client -d /dev/nbd0
until_gone nbd0

step Unix socket
sudo nbd-client -unix pool/nbd.sock -N disk0 /dev/nbd0
mount /dev/nbd0 /mnt
require_tree
start_writing /mnt/numbered
await_durable 20
kill -9 "$server"
fails wait "$server"
durable=$(cat /tmp/durable)
serve
sudo nbd-client -d /dev/nbd0
# Only then its last write fails, and it lets go of the file system.
fails wait "$writer"
sudo umount /mnt
sudo nbd-client -N disk0 127.0.0.1 10809 /dev/nbd0 && sudo mount /dev/nbd0 /mnt
require_tree
require_numbered /mnt/numbered "$durable"
sudo umount /mnt && sudo nbd-client -d /dev/nbd0
until_gone nbd0

step two connections
sudo nbd-client -N disk0 -C 2 127.0.0.1 10809 /dev/nbd0
fsck.ext4 -fn /dev/nbd0
mount /dev/nbd0 /mnt
require_tree
sudo umount /mnt && sudo nbd-client -d /dev/nbd0
until_gone nbd0

step stop
kill "$server"
wait "$server"
$gossamer check
cat /tmp/log
grep -c 'attached to "disk0"' /tmp/log >&3
step end
