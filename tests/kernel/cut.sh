# Guest: a pool with a device 2, mapped in many runs, loses power amid a discard of all of it.
#
#   cut.sh BLOCK_SECTORS DATA_BLOCKS DEVICE_BLOCKS
#
# Prints `synced ID BYTES SHA256` for two devices that were made here and left alone from then on. The kernel counts a
# block once more while it passes its discard down; a commit at that moment makes the count durable, and nobody takes it
# back.

. /host/thin_pool.sh
block_bytes=$(($1 * 512))
pool "$1" "$2"

message create_thin 0
activate 0 $((50 * block_bytes))
scribble 0 0 $((20 * block_bytes))
snap 0 1
activate 1 $((50 * block_bytes))
scribble 1 $((5 * block_bytes + 100)) $((10 * block_bytes))

for device in 0 1; do tell synced "$device" "$(mapped_end "$device")"; done
activate 2 $(($3 * block_bytes))
discard 2 0 $(($3 * block_bytes)) &
sleep 0.1
# Asking for the status commits what is under way.
dmsetup status pool >/dev/null
cut_power
