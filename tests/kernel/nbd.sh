# Guest functions for the kernel's NBD client: volumes of the host's server as /dev/nbd0 and on. The server listens on
# port $port of the host's loopback; whoever sources this has set that.

# Any failing step ends the script with a status.
set -e

# step TEXT...: a line for the console, with the seconds since the boot.
step() { note "$(cut -d ' ' -f 1 /proc/uptime) $*"; }

# prepare_connections: call it before a device with two connections is attached. The driver has a work item that never
# ends for each connection. Where the kernel takes longer than 10 ms to start a worker for the second, as it may here, its
# rescue thread takes both items and begins the second after the first: nobody reads that connection. Every request on it
# times out after 30 s, and is repeated on the other. Devices that were attached before leave idle workers behind.
prepare_connections() {
  local device
  for device in nbd1 nbd2 nbd3; do attach "$device" disk; done
  for device in nbd1 nbd2 nbd3; do detach "$device"; done
}

# fails COMMAND...: it has to; a failure behind `!` alone is one that nobody looks at.
fails() { if "$@"; then return 1; fi; }

# attach DEVICE EXPORT [OPTION]...
attach() {
  local device=$1 export=$2
  shift 2
  nbd-client -N "$export" "$@" 10.0.2.2 "$port" "/dev/$device" >&2
  until_ready "$device"
}

# until_ready DEVICE: the kernel knows the size of a device a little after nbd-client has returned.
until_ready() {
  local tries=0
  until [ "$(cat "/sys/block/$1/size")" -gt 0 ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ]
    sleep 0.1
  done
}

# detach DEVICE: whoever uses it has closed it.
detach() {
  nbd-client -d "/dev/$1" >&2
  until_gone "$1"
}

# until_gone DEVICE: the kernel lets go of a device a little after it was detached and closed.
until_gone() {
  local tries=0
  while [ -e "/sys/block/$1/pid" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ]
    sleep 0.1
  done
}

# tell_mapped WHEN: how much of `disk` is mapped, as the host sees it.
tell_mapped() {
  ask mapped
  echo "mapped $1 $answer"
}

# plant FOLDER: a file tree: programs, texts, many links, a file with holes.
plant() {
  mkdir -p "$1/deep/er/still"
  cp -R /bin /etc "$1"
  cp /sbin/nbd-client /host/*.sh "$1/deep/er/still"
  ln "$1/bin/busybox" "$1/deep/busybox"
  echo end | dd of="$1/deep/holes" bs=1M seek=30 2>/dev/null
}

# sums FOLDER: a sum of each file and each link in it.
sums() {
  (
    cd "$1"
    find . -type f | sort | xargs sha256sum
    find . -type l | sort | xargs -n 1 readlink | sha256sum
  )
}

# start_writing FOLDER: writes files 1, 2, 3... beside the script and makes each durable; /tmp/durable has the last number.
start_writing() {
  write_numbered "$1" &
  writer=$!
}

write_numbered() {
  local number=1
  mkdir -p "$1"
  until [ -e /tmp/enough ]; do
    numbered "$number" | dd of="$1/$number" conv=fsync 2>/dev/null
    # Whoever reads this sees the number before or after, never half of it.
    echo "$number" >/tmp/durable.new
    mv /tmp/durable.new /tmp/durable
    number=$((number + 1))
  done
}

stop_writing() {
  touch /tmp/enough
  wait "$writer"
}

numbered() { seq "$1" $(($1 + 700 * ($1 % 7))); }

# await_durable COUNT: until so many files are, and sets $durable to how many.
await_durable() {
  until [ -e /tmp/durable ] && [ "$(cat /tmp/durable)" -ge "$1" ]; do sleep 0.1; done
  durable=$(cat /tmp/durable)
}

# trim_back FILE...: removes the files, whose space comes back.
trim_back() {
  tell_mapped full
  rm "$@"
  sync
  step fstrim
  fstrim -v /mnt >&2
  tell_mapped trimmed
}

# snapshot_amid_writes FOLDER: has a snapshot taken while files are written there; $before files were durable then.
snapshot_amid_writes() {
  step write
  start_writing "$1"
  await_durable 10
  before=$durable
  step snapshot
  ask snapshot
  await_durable $((before + 10))
  stop_writing
}

# require_numbered FOLDER COUNT: the files 1 to COUNT are what was written.
require_numbered() {
  local number=1
  while [ "$number" -le "$2" ]; do
    numbered "$number" | cmp - "$1/$number"
    number=$((number + 1))
  done
}
