# Guest functions for a thin pool of the kernel: metadata on /dev/vda, data on /dev/vdb, devices named after their thin id.

# Any failing step ends the script with a status.
set -e

# Nobody answers to udev's name here; dmsetup makes the nodes itself.
export DM_DISABLE_UDEV=1

# pool BLOCK_SECTORS DATA_BLOCKS [FEATURE]...: activates the pool; all-zero metadata is formatted by that.
pool() {
  local block=$1 blocks=$2
  shift 2
  dmsetup create pool --table "0 $((block * blocks)) thin-pool /dev/vda /dev/vdb $block 0 $# $*"
}

message() { dmsetup message pool 0 "$*"; }

# activate ID BYTES
activate() { dmsetup create "thin-$1" --table "0 $(($2 / 512)) thin /dev/mapper/pool $1"; }

deactivate() { dmsetup remove "thin-$1"; }

# snap ORIGIN SNAPSHOT: the origin is active, and must not change meanwhile.
snap() {
  dmsetup suspend "thin-$1"
  message "create_snap $2 $1"
  dmsetup resume "thin-$1"
}

# scribble ID OFFSET BYTES: random bytes, wherever they fall among blocks. Flushed at the end.
scribble() {
  head -c "$3" /dev/urandom | dd of="/dev/mapper/thin-$1" bs=64k seek="$2" oflag=seek_bytes conv=notrunc,fsync 2>/dev/null
}

# discard ID OFFSET BYTES
discard() { blkdiscard -o "$2" -l "$3" "/dev/mapper/thin-$1"; }

# mapped_end ID: the byte after the highest mapped one.
mapped_end() { dmsetup status "thin-$1" | awk '{ print $5 == "-" ? 0 : ($5 + 1) * 512 }'; }

# tell WORD ID BYTES: the content up to BYTES, as the line `WORD ID BYTES SHA256`.
tell() {
  local sum
  sum=$(head -c "$3" "/dev/mapper/thin-$2" | sha256sum)
  echo "$1 $2 $3 ${sum%% *}"
}

# shut_down: every device goes, the pool last; that commits. The next to open the files finds all of it.
shut_down() {
  local name
  for name in $(dmsetup ls | cut -f1 | grep thin-); do dmsetup remove "$name"; done
  note "$(dmsetup status pool)"
  dmsetup remove pool
  sync
}
