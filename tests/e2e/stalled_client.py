"""Two clients of one server: one does something slow, and once it waits the other reads what is in the page cache.

usage: stalled_client.py SOCKET SLOW_EXPORT READ_EXPORT write|flush|warm
warm: twenty writes with a flush after each, and one read. Prints in JSON how long the slow one took, and of the reads beside
it how many there were, the 99.9th hundredth and the longest, in milliseconds.
"""
import json
import sys
import threading
import time

import nbd


def connect(socket, export):
    handle = nbd.NBD()
    handle.set_export_name(export)
    handle.connect_unix(socket)
    return handle


def main():
    socket, slow_export, read_export, what = sys.argv[1:]
    slow, reader = connect(socket, slow_export), connect(socket, read_export)
    if what == "warm":
        reader.pwrite(b"\2" * 4096, 0)
        reader.pread(4096, 0)
    begun = time.monotonic()

    def work():
        for _ in range(20 if what == "warm" else 1):
            slow.pwrite(b"\1" * 4096, 0)
            if what != "write":
                slow.flush()

    thread = threading.Thread(target=work)
    thread.start()
    times = [0]
    if what != "warm":
        time.sleep(0.1)
        while thread.is_alive():
            sent = time.monotonic()
            reader.pread(4096, 0)
            times.append(time.monotonic() - sent)
            time.sleep(0.001)
    thread.join()
    took = time.monotonic() - begun
    times.sort()
    print(json.dumps({
        "slowMs": round(took * 1000),
        "reads": len(times) - 1,
        "p999Ms": round(times[len(times) * 999 // 1000] * 1000, 1),
        "maxMs": round(times[-1] * 1000, 1),
    }))
    slow.shutdown()
    reader.shutdown()


main()
