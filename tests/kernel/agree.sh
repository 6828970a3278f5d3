# Guest: a pool made elsewhere is activated, read, changed, and handed back.
#
#   agree.sh BLOCK_SECTORS DATA_BLOCKS WRITTEN_ID DELETED_ID ID:BYTES...
#
# Prints `before ID BYTES SHA256` for every device named, then changes the pool: writes, snapshots and discards the device
# WRITTEN_ID, deletes DELETED_ID. Then prints `after ...` likewise for what there is; new devices (900, 901) count as large
# as what is mapped of them, which is all that a reader of the metadata can know.

. /host/thin_pool.sh
block_bytes=$(($1 * 512))
pool "$1" "$2"
written=$3
deleted=$4
shift 4

for volume in "$@"; do
  activate "${volume%:*}" "${volume#*:}"
  tell before "${volume%:*}" "${volume#*:}"
done

# Across three blocks, of which only the middle one is whole.
scribble "$written" $((block_bytes - 777)) $((2 * block_bytes))
snap "$written" 900
activate 900 $((100 * block_bytes))
# Both sides of the new sharing break it, at blocks that overlap partly.
scribble "$written" 12345 1
scribble "$written" $((5 * block_bytes)) $((3 * block_bytes))
scribble 900 $((7 * block_bytes + 512)) $((2 * block_bytes))
# Whole blocks inside are unmapped, those at the ends stay; some are shared with other snapshots.
discard "$written" $((block_bytes * 2 + 4096)) $((block_bytes * 4))
message create_thin 901
activate 901 $((64 * block_bytes))
scribble 901 $((33 * block_bytes + 1)) $((block_bytes + 1))
deactivate "$deleted"
message delete "$deleted"

for volume in "$@"; do
  [ "${volume%:*}" = "$deleted" ] || tell after "${volume%:*}" "${volume#*:}"
done
for new in 900 901; do tell after "$new" "$(mapped_end "$new")"; done
shut_down
