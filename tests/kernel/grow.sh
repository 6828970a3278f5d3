# Guest: a pool is activated with as many blocks as its devices have, and filled to the last one.
#
#   grow.sh BLOCK_SECTORS DATA_BLOCKS NEW_ID NEW_BLOCKS
#
# What the metadata counts may be less: then the kernel grows it. Writes NEW_BLOCKS blocks to the new device NEW_ID, which
# must be all that were free. Prints `filled NEW_ID BYTES SHA256`.

. /host/thin_pool.sh
block_bytes=$(($1 * 512))
pool "$1" "$2" error_if_no_space
new=$3
new_bytes=$(($4 * block_bytes))

message create_thin "$new"
activate "$new" $((new_bytes + block_bytes))
scribble "$new" 0 "$new_bytes"
# The pool is full: one more block has no place.
if head -c 512 /dev/urandom |
  dd of="/dev/mapper/thin-$new" bs=512 seek="$new_bytes" oflag=seek_bytes conv=notrunc,fsync 2>/dev/null; then
  note "a full pool took one more block"
  exit 1
fi
tell filled "$new" "$new_bytes"
shut_down
