# Guest: a pool made elsewhere is activated and read.
#
#   read.sh BLOCK_SECTORS DATA_BLOCKS ID:BYTES...
#
# Prints `read ID BYTES SHA256` for every device named.

. /host/thin_pool.sh
pool "$1" "$2"
shift 2

for volume in "$@"; do
  activate "${volume%:*}" "${volume#*:}"
  tell read "${volume%:*}" "${volume#*:}"
done
shut_down
