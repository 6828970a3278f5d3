"""
A client that kills its server amid commits, and keeps what was acknowledged in a raw file beside.

    commit_kills.py VOLUME_BYTES SEED

Answers a line of JSON to each line: `["verify", URI, RAW]`, `["round", URI, RAW, PID]`. Requests that a kill has left
without an answer may have happened or not, each sector by itself; what is found of them after it counts from then on.
"""

import json
import os
import random
import signal
import sys
import time

import nbd

BLOCK = 65536
SECTOR = 512
size = int(sys.argv[1])
rng = random.Random(int(sys.argv[2]))
# What was under way at the last kill: pairs of an offset and the bytes.
unanswered = []
serial = 0


def connected(uri):
    handle = nbd.NBD()
    handle.connect_uri(uri)
    return handle


def content(length):
    """Bytes that tell which request wrote them."""
    global serial
    serial += 1
    return (b"%015d\n" % serial) * (length // 16)


def verify(uri, raw):
    """What differs from the raw file, and is not what was under way."""
    handle = connected(uri)
    problems = []
    with open(raw, "r+b") as file:
        for at in range(0, size, BLOCK):
            found = bytes(handle.pread(BLOCK, at))
            file.seek(at)
            wanted = file.read(BLOCK)
            if found == wanted:
                continue
            for sector in range(at, at + BLOCK, SECTOR):
                piece = found[sector - at : sector - at + SECTOR]
                allowed = [wanted[sector - at : sector - at + SECTOR]]
                for offset, new in unanswered:
                    if offset <= sector < offset + len(new):
                        allowed.append(new[sector - offset : sector - offset + SECTOR])
                if piece not in allowed:
                    problems.append("%d is %r, not %r" % (sector, piece[:16], [each[:16] for each in allowed]))
            file.seek(at)
            file.write(found)
    handle.shutdown()
    unanswered.clear()
    return problems[:10]


def request(handle, offset, length, completion=None):
    """Sends a request of any kind, and gives the bytes that it leaves."""
    kind = rng.randrange(8)
    whole = offset % BLOCK == 0 and length % BLOCK == 0
    send = completion is not None
    if kind == 0 and whole:
        handle.aio_trim(length, offset, completion) if send else handle.trim(length, offset)
        return bytes(length)
    if kind == 1:
        handle.aio_zero(length, offset, completion) if send else handle.zero(length, offset)
        return bytes(length)
    data = content(length)
    handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), offset, completion) if send else handle.pwrite(data, offset)
    return data


def acknowledged_requests(handle, file, count):
    for _ in range(count):
        length = rng.choice([4096, 16384, BLOCK, 2 * BLOCK])
        offset = rng.randrange((size - length) // 4096 + 1) * 4096
        if length >= BLOCK:
            offset -= offset % BLOCK
        data = request(handle, offset, length)
        file.seek(offset)
        file.write(data)


def play_round(uri, raw, pid):
    """Writes, flushes, writes, then kills the server at a random moment of a flush with other requests beside it."""
    handle = connected(uri)
    acknowledged = rng.randrange(5, 40)
    answered = []
    with open(raw, "r+b") as file:
        acknowledged_requests(handle, file, acknowledged)
        begin = time.monotonic()
        handle.flush()
        flush_s = time.monotonic() - begin
        more = rng.randrange(5, 40)
        acknowledged_requests(handle, file, more)
        # Each in blocks of its own, so that their order does not matter.
        sent = []
        flushed = []
        places = rng.sample(range(size // BLOCK), rng.randrange(1, 9))
        flush_at = rng.randrange(len(places) + 1)
        for index, place in enumerate(places + [None]):
            if index == flush_at:
                handle.aio_flush(lambda error: flushed.append(error.value) or 1)
            if place is None:
                break
            offset, length = place * BLOCK, rng.choice([4096, BLOCK])
            data = request(handle, offset, length, lambda error, at=index: answered.append((at, error.value)) or 1)
            sent.append((offset, data))
        until = time.monotonic() + flush_s * 1.2 * rng.random()
        while time.monotonic() < until:
            handle.poll(max(0, int((until - time.monotonic()) * 1000)))
        is_flushed = bool(flushed)
        os.kill(pid, signal.SIGKILL)
        # Answers that had left the server before count.
        try:
            while not handle.aio_is_dead() and not handle.aio_is_closed():
                if handle.poll(10000) == 0:
                    break
        except nbd.Error:
            pass
        done = {at for at, error in answered if error == 0}
        for index, (offset, data) in enumerate(sent):
            if index in done:
                file.seek(offset)
                file.write(data)
        unanswered[:] = [each for index, each in enumerate(sent) if index not in done]
    return {"acknowledged": acknowledged + more + len(done), "flushed": is_flushed, "flush_ms": flush_s * 1000}


for line in sys.stdin:
    command, *args = json.loads(line)
    print(json.dumps(verify(*args) if command == "verify" else play_round(*args)), flush=True)
