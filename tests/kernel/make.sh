# Guest: the kernel formats a pool on zeroed metadata and gives it a history of writes, snapshots and discards.
#
#   make.sh BLOCK_SECTORS DATA_BLOCKS
#
# Prints `made ID BYTES SHA256` for every device, up to the highest byte that is mapped.

. /host/thin_pool.sh
block_bytes=$(($1 * 512))
device_bytes=$((60 * block_bytes))
pool "$1" "$2"

message create_thin 0
activate 0 $device_bytes
scribble 0 0 $((20 * block_bytes))
scribble 0 $((45 * block_bytes + 99)) 12345
snap 0 1
scribble 0 $((5 * block_bytes + 5)) $((6 * block_bytes))
snap 0 2
# Enough forks of one block that its count leaves the bitmap for the overflow tree.
for fork in 10 11 12 13; do message "create_snap $fork 2"; done
discard 0 $((2 * block_bytes)) $((5 * block_bytes))
activate 1 $device_bytes
scribble 1 $((15 * block_bytes)) 100
message create_thin 16777215
activate 16777215 $device_bytes
scribble 16777215 $((30 * block_bytes)) "$block_bytes"
message create_thin 5
message delete 5
message set_transaction_id 0 7

for device in 2 10 11 12 13; do activate "$device" $device_bytes; done
for device in 0 1 2 10 11 12 13 16777215; do tell made "$device" "$(mapped_end "$device")"; done
shut_down
