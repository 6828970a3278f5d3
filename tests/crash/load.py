"""
Random load on one export, many requests in flight: python3 load.py SOCKET EXPORT BYTES REQUESTS SEED.
Everything is whole sectors, and every write has other bytes. What the server refuses is no failure of the load.
"""

import random
import sys

import nbd

SECTOR = 512
BLOCK = 65536
DEPTH = 12


def random_range(rng, size):
    """Whole blocks, small pieces that meet each other, or anything."""
    shape = rng.randrange(4)
    if shape == 0:
        begin = rng.randrange(size // BLOCK) * BLOCK
        return begin, BLOCK
    if shape == 1:
        return min(size - 8 * SECTOR, rng.randrange(size // BLOCK) * BLOCK + rng.randrange(4) * 4096), 8 * SECTOR
    begin = rng.randrange(size // SECTOR) * SECTOR
    return begin, min(size - begin, SECTOR * rng.randint(1, 300 if shape == 2 else 16))


def submit(handle, rng, size):
    """Starts one request and gives its cookie."""
    begin, length = random_range(rng, size)
    fua = nbd.CMD_FLAG_FUA if rng.randrange(10) == 0 else 0
    kind = rng.randrange(20)
    if kind < 3:
        return handle.aio_flush()
    if kind < 12:
        return handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(rng.randbytes(length))), begin, flags=fua)
    if kind < 15:
        return handle.aio_trim(length, begin, flags=fua)
    if kind < 18:
        return handle.aio_zero(length, begin, flags=fua | (nbd.CMD_FLAG_NO_HOLE if kind == 17 else 0))
    return handle.aio_pread(nbd.Buffer(length), begin)


def retire(handle, cookies):
    """Takes the answers that are there; gives the cookies still in flight."""
    left = []
    for cookie in cookies:
        try:
            if not handle.aio_command_completed(cookie):
                left.append(cookie)
        except nbd.Error:
            pass
    return left


def main():
    socket, export, size, requests, seed = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    rng = random.Random(seed)
    handle = nbd.NBD()
    handle.set_export_name(export)
    handle.connect_unix(socket)
    cookies = []
    for _ in range(requests):
        cookies.append(submit(handle, rng, size))
        while len(cookies) >= DEPTH:
            handle.poll(-1)
            cookies = retire(handle, cookies)
    while cookies:
        handle.poll(-1)
        cookies = retire(handle, cookies)
    handle.shutdown()


main()
