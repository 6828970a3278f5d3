"""
The mixed load of the torture test, and the judge of every byte.

Reads one line of JSON from stdin (the options of Torture and `seconds`), prints "attached" when its clients are
and the file `beside` exists, loads the server for so long, prints "loaded", waits for another line, then verifies everything and prints
a line of JSON: problems, counts, longest waits in seconds.

What may go wrong: a write, zero or trim may answer ENOSPC, and a snapshot or clone may be refused for want of space, as
the host is full at times. A new connection may be refused, as descriptors and places are few; it is tried again for
PATIENCE_S seconds. Everything else is a problem: another error, a wrong byte, a snapshot that changes, an `rm` refused.
"""

import hashlib
import json
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))

import nbd
import histories
from agent import Gone, Refused, connect, control, read_all

# How long a client tries to get in, or to have a command answered, before that is a problem.
PATIENCE_S = 60
# Between two requests of one connection: the load is mixed, not heavy.
PACE_S = 0.01
# A request that needs a loan (limits.ts: connectionBytesMax), for which clients compete.
LARGE = 4 << 20
# Snapshots and clones that are kept from one round of the administrator to the next.
KEPT = 4
# Between two reads of the client that touches no device.
LOOK_S = 0.05


def patiently(act, waits, kind):
    """Does what may find no place or descriptor for a while. Counts how long it took; raises Gone after PATIENCE_S."""
    begin = time.monotonic()
    while True:
        try:
            result = act()
            waits.note(kind, time.monotonic() - begin)
            return result
        except Gone:
            if time.monotonic() - begin > PATIENCE_S:
                raise
            time.sleep(0.2)


class Waits:
    """The longest wait of each kind, seconds."""

    def __init__(self):
        self.longest = {}

    def note(self, kind, seconds):
        if seconds > self.longest.get(kind, 0):
            self.longest[kind] = round(seconds, 3)


class TimedLoad(histories.Load):
    """The load of the crash tests, slower, with each answer's wait noted."""

    def run(self, ready):
        self.begun = {}
        super().run(ready)
        if not self.world.stopping:
            self.world.problems.append(f"{self.volume.name}: the connection ended")

    def submit(self, handle):
        time.sleep(PACE_S)
        super().submit(handle)
        for cookie in self.inflight:
            self.begun.setdefault(cookie, time.monotonic())

    def retire(self, handle, cookie):
        super().retire(handle, cookie)
        if cookie not in self.inflight:
            self.world.waits.note("load", time.monotonic() - self.begun.pop(cookie))


class PatientAdministrator(histories.Administrator):
    """The administrator of the crash tests, where a snapshot may find no space and a command no descriptor."""

    def run(self):
        while not self.world.stopping:
            self.round()

    def round(self):
        try:
            super().round()
        except Refused:
            self.world.counts["refused"] += 1
        self.sweep()
        self.world.forget_history()

    def sweep(self):
        """Keeps a few: a round makes more than it removes. Removing works always, whatever is full."""
        world = self.world
        doomed = self.random.sample(sorted(world.digests), max(0, len(world.digests) - KEPT))
        for name in doomed:
            del world.digests[name]
        for name in doomed:
            self.command([name], verb="rm", names=[name], dry_run=False, force=True)

    def command(self, about, **command):
        attempts = []

        def once():
            attempts.append(None)
            return control(self.world.control, **command)

        try:
            patiently(once, self.world.waits, "command")
        except Refused as error:
            # An attempt before, whose answer was lost, may have done it.
            if len(attempts) > 1 and any(word in str(error) for word in ("exists already", "there is no")):
                return
            # Whatever is full, removing must help; and the metadata have room for all that is kept.
            if command["verb"] == "rm" or not any(word in str(error) for word in ("space", "host is full")):
                self.world.problems.append(f"{command}: {error}")
            raise

    def read(self, name):
        handle = patiently(lambda: connect(self.world.socket, name), self.world.waits, "connect")
        begin = time.monotonic()
        content = read_all(handle, self.world.size, LARGE)
        self.world.waits.note("large reads", time.monotonic() - begin)
        handle.shutdown()
        return content


class Torture(histories.World):
    """The volumes under load, an administrator, and clients that no fault concerns."""

    def __init__(self, socket, control, names, untouched, beside, size, seed):
        super().__init__(socket, control, names, size, seed)
        self.untouched = untouched
        self.beside = beside
        self.waits = Waits()
        self.counts["refused"] = 0
        self.counts["looks"] = 0

    def start(self):
        ready = threading.Barrier(histories.CONNECTIONS * len(self.volumes) + 1)
        loads = [TimedLoad(self, each, self.random.getrandbits(32)) for each in self.volumes * histories.CONNECTIONS]
        administrator = PatientAdministrator(self, self.random.getrandbits(32))
        runs = [lambda load=load: load.run(ready) for load in loads]
        runs += [administrator.run, self.look_at_holes, self.ask_status]
        self.threads = [threading.Thread(target=self.watched, args=(run,), daemon=True) for run in runs]
        for thread in self.threads:
            thread.start()
        ready.wait(30)
        self.await_beside()

    def await_beside(self):
        """Until the other client has attached. One that does not has ended, and its starter says why."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and not os.path.exists(self.beside):
            time.sleep(LOOK_S)

    def look_at_holes(self):
        """Reads where nothing was ever written: no device is asked, so neither a stall nor a full host concerns it."""
        handle = connect(self.socket, self.untouched)
        while not self.stopping:
            begin = time.monotonic()
            if any(handle.pread(4096, (self.counts["looks"] * 4096) % self.size)):
                self.problems.append("an unwritten range is not zeroes")
            self.waits.note("untouched", time.monotonic() - begin)
            self.counts["looks"] += 1
            time.sleep(LOOK_S)
        handle.shutdown()

    def ask_status(self):
        while not self.stopping:
            patiently(lambda: control(self.control, verb="status"), self.waits, "status")
            time.sleep(10 * LOOK_S)

    def forget_history(self):
        """What no snapshot and no read can show any more: the histories would else grow with the length of the run."""
        with self.lock:
            for volume in self.volumes:
                for block, history in enumerate(volume.histories):
                    newest = max(index for index, value in enumerate(history) if value.answered is not None)
                    if newest > 0:
                        volume.histories[block] = history[newest:]

    def verify_all(self):
        for volume in self.volumes:
            handle = connect(self.socket, volume.name)
            content = read_all(handle, self.size)
            handle.shutdown()
            for block in range(volume.blocks):
                number = self.number_at(volume, block, content)
                expected = volume.present(block)
                if number not in expected:
                    self.problems.append(f"{volume.name} block {block} holds {number} at the end, not {expected}")
        self.digests = {name: digest for name, digest in self.digests.items() if digest is not None}
        for name, digest in self.digests.items():
            if hashlib.sha256(read_all(connect(self.socket, name), self.size)).hexdigest() != digest:
                self.problems.append(f"{name} is not what it was")


def main():
    options = json.loads(sys.stdin.readline())
    seconds = options.pop("seconds")
    world = Torture(**options)
    world.start()
    print("attached", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end and all(thread.is_alive() for thread in world.threads):
        time.sleep(0.1)
    world.stopping = True
    world.join()
    print("loaded", flush=True)
    sys.stdin.readline()
    try:
        world.verify_all()
    except (Gone, nbd.Error) as error:
        world.problems.append(f"nothing could be read at the end: {error}")
    print(json.dumps({"problems": world.problems, "counts": world.counts, "waits": world.waits.longest}), flush=True)


if __name__ == "__main__":
    main()
