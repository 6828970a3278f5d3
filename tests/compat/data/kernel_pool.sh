# Makes the images beside this file: run in a guest of Linux 6.1 with /dev/vda = 8 MiB metadata, /dev/vdb = 256 MiB
# data, and /dev/vdc to vdf = 8 MiB each for copies of the metadata: before a metadata snapshot, just after it was
# taken, while it is held and the pool has changed, and after its release. Needs dm_thin_pool, dmsetup, blkdiscard.
sectors=$(cat /sys/class/block/vdb/size)
dmsetup create pool --table "0 $sectors thin-pool /dev/vda /dev/vdb 128 0 1 skip_block_zeroing" && dmsetup mknodes || exit 5
message() { dmsetup message pool 0 "$@" || exit 6; }
open() { dmsetup create "t$1" --table "0 819200 thin /dev/mapper/pool $1" && dmsetup mknodes || exit 7; }
write() { dd if=/dev/zero of=/dev/mapper/t$1 bs=64k seek=$2 count=$3 conv=notrunc 2>/dev/null || exit 8; }
copy() {
  dmsetup suspend pool
  echo 3 > /proc/sys/vm/drop_caches
  dd if=/dev/vda of=$1 bs=64k 2>/dev/null || exit 9
  dmsetup resume pool
}

message "create_thin 0"; message "create_thin 1"; open 0; open 1
write 0 0 700; write 1 10 50; write 1 6000 3; sync
for id in 2 3 4 5 6 7; do
  dmsetup suspend t0; message "create_snap $id 0"; dmsetup resume t0; open $id
  write 0 $((id * 40)) 7; write $id $((id * 90)) 9; sync
done
blkdiscard -o $((65536 * 20)) -l $((65536 * 15)) /dev/mapper/t0; sync
copy /dev/vdc
message reserve_metadata_snap
copy /dev/vdd
write 0 100 30; write 3 650 20; dmsetup remove t4; message "delete 4"; message "create_thin 77"; open 77
write 77 3 20; sync
blkdiscard -o $((65536 * 300)) -l $((65536 * 55)) /dev/mapper/t5; sync
copy /dev/vde
message release_metadata_snap
copy /dev/vdf
sync
exit 0
