"""
Load for crash tests, and what may be found afterwards.

Every write numbers 4 KiB blocks. For each block its history is kept: the values submitted, in order, each with the
moments at which it was submitted and answered. No block has two requests in flight, so that a history has one order.
From it follows what a snapshot may hold, and what may be there after a crash (design, section 10).
"""

import hashlib
import random
import struct
import threading
import time
import traceback

import nbd

from agent import Gone, Refused, connect, control, read_all

BLOCK = 4096
SECTOR = 512
# Blocks of 4 KiB in one of the pool.
PER_POOL_BLOCK = 16
HEADER = struct.Struct(">QII16s")
ZERO_SECTOR = bytes(SECTOR)
# Requests in flight on a connection, and connections to a volume.
DEPTH = 8
CONNECTIONS = 2


def sectors_of(volume, block, number):
    """What a block of a volume holds after the write of that number, in each of its sectors."""
    return HEADER.pack(number, volume, block, b"gossamer-e2e....") * (BLOCK // HEADER.size)


def number_in(volume, block, content):
    """The number that a block holds: 0 for zeroes. Raises ValueError where it is torn, or not a block of ours."""
    if content == bytes(BLOCK):
        return 0
    number = HEADER.unpack_from(content)[0]
    if content == sectors_of(volume, block, number):
        return number
    numbers = []
    for at in range(0, BLOCK, SECTOR):
        sector = content[at : at + SECTOR]
        numbers.append("zero" if sector == ZERO_SECTOR else HEADER.unpack_from(sector)[:3])
    raise ValueError(f"block {block} of volume {volume} is torn or foreign: {numbers}")


class Value:
    """A value of a block, and when it was submitted and answered."""

    __slots__ = ("number", "submitted", "answered", "durable")

    def __init__(self, number, submitted, answered=None):
        self.number = number
        self.submitted = submitted
        self.answered = answered
        # Whether its answer promised durability (FUA).
        self.durable = False


class Volume:
    """The histories of one volume's blocks."""

    def __init__(self, index, name, size):
        self.index = index
        self.name = name
        self.blocks = size // BLOCK
        self.histories = [[Value(0, 0, 0)] for _ in range(self.blocks)]
        self.busy = set()
        # The moment at which the latest answered flush was submitted.
        self.flushed = 0

    def restart_from(self, numbers):
        """Forgets everything but what is there now."""
        self.histories = [[Value(number, 0, 0)] for number in numbers]
        self.busy = set()
        self.flushed = 0

    def present(self, block):
        """What a read may find while nothing is in flight: the last value answered, or one that failed since."""
        history = self.histories[block]
        begin = max((index for index, value in enumerate(history) if value.answered is not None))
        return [value.number for value in history[begin:]]

    def durable_index(self, block):
        """The latest value of a block that was promised to survive."""
        history = self.histories[block]
        for index in range(len(history) - 1, -1, -1):
            value = history[index]
            if value.answered is not None and (value.durable or value.answered < self.flushed):
                return index
        return 0


class World:
    """Volumes under load, and an administrator beside it."""

    def __init__(self, socket, control, names, size, seed):
        self.socket = socket
        self.control = control
        self.random = random.Random(seed)
        self.volumes = [Volume(index, name, size) for index, name in enumerate(names)]
        self.size = size
        self.lock = threading.Lock()
        self.tick = 0
        self.number = 0
        # The digests of snapshots and clones that are certainly there, and names of which nothing is certain.
        self.digests = {}
        self.uncertain = set()
        self.problems = []
        self.counts = {"writes": 0, "flushes": 0, "trims": 0, "zeroes": 0, "reads": 0, "snapshots": 0, "full": 0}
        self.threads = []
        self.stopping = False

    def now(self):
        self.tick += 1
        return self.tick

    def start(self):
        self.stopping = False
        ready = threading.Barrier(CONNECTIONS * len(self.volumes) + 1)
        loads = [Load(self, volume, self.random.getrandbits(32)) for volume in self.volumes * CONNECTIONS]
        administrator = Administrator(self, self.random.getrandbits(32))
        runs = [lambda load=load: load.run(ready) for load in loads] + [administrator.run]
        self.threads = [threading.Thread(target=self.watched, args=(run,)) for run in runs]
        for thread in self.threads:
            thread.start()
        ready.wait(30)

    def watched(self, run):
        """A thread that fails says so instead of vanishing."""
        try:
            run()
        except Exception:
            self.problems.append(traceback.format_exc())

    def join(self):
        for thread in self.threads:
            thread.join(60)
        if any(thread.is_alive() for thread in self.threads):
            self.problems.append("a client still waits though its server is dead")
        self.threads = []

    def verify(self):
        """Judges what is there after a crash, and takes it for the beginning of what follows."""
        for volume in self.volumes:
            handle = connect(self.socket, volume.name)
            content = read_all(handle, self.size)
            handle.shutdown()
            volume.restart_from(self.judge_crash(volume, content))
        for name, digest in self.digests.items():
            handle = connect(self.socket, name)
            if hashlib.sha256(read_all(handle, self.size)).hexdigest() != digest:
                self.problems.append(f"{name} is not what it was")
            handle.shutdown()

    def judge_crash(self, volume, content):
        numbers = []
        for block in range(volume.blocks):
            number = self.number_at(volume, block, content)
            numbers.append(number)
            begin = volume.durable_index(block)
            allowed = [value.number for value in volume.histories[block][begin:]]
            if number not in allowed:
                self.problems.append(f"{volume.name} block {block} holds {number}, not one of {allowed}")
        return numbers

    def judge_snapshot(self, begin, end, contents):
        """
        Judges snapshots taken at one instant between two moments: what was answered before `begin` is in them, what was
        submitted after `end` is not, and what was answered before anything that they hold was submitted is in them too.
        """
        found = []
        latest = 0
        for volume, content in zip(self.volumes, contents):
            for block in range(volume.blocks):
                history = volume.histories[block]
                number = self.number_at(volume, block, content)
                # The first value that fits: a block may be zeroed more than once.
                fitting = [
                    index
                    for index, value in enumerate(history)
                    if value.number == number
                    and value.submitted <= end
                    and not is_superseded(history, index, begin)
                ]
                if not fitting:
                    self.problems.append(f"a snapshot of {volume.name} holds {number} in block {block}")
                    continue
                found.append((volume, block, fitting))
                latest = max(latest, history[fitting[0]].submitted)
        for volume, block, fitting in found:
            history = volume.histories[block]
            if is_superseded(history, fitting[-1], latest):
                self.problems.append(f"a snapshot of {volume.name} lacks what was answered in block {block}")

    def number_at(self, volume, block, content):
        try:
            return number_in(volume.index, block, content[block * BLOCK : (block + 1) * BLOCK])
        except ValueError as error:
            self.problems.append(str(error))
            return -1


def is_superseded(history, index, moment):
    """Whether a later value was answered before a moment. What failed, as in a full pool, is never answered."""
    return any(value.answered is not None and value.answered < moment for value in history[index + 1 :])


class Load:
    """One connection that keeps DEPTH requests in flight until the server is gone."""

    def __init__(self, world, volume, seed):
        self.world = world
        self.volume = volume
        self.random = random.Random(seed)
        # Cookie -> the blocks of that request, and what to do when it is answered.
        self.inflight = {}

    def run(self, ready):
        handle = connect(self.world.socket, self.volume.name)
        ready.wait(30)
        try:
            while not self.world.stopping or self.inflight:
                while len(self.inflight) < DEPTH and not self.world.stopping:
                    self.submit(handle)
                handle.poll(1000)
                for cookie in list(self.inflight):
                    self.retire(handle, cookie)
            handle.shutdown()
        except nbd.Error as error:
            # A server that is alive may not fail us. What was in flight stays submitted and unanswered.
            if not handle.aio_is_dead() and not handle.aio_is_closed():
                self.world.problems.append(f"{self.volume.name}: {error}")
        except ValueError as error:
            self.world.problems.append(f"{self.volume.name}: {error}")

    def retire(self, handle, cookie):
        try:
            if not handle.aio_command_completed(cookie):
                return
            _, answered = self.inflight[cookie]
            answered()
        except nbd.Error as error:
            # A full pool may have done all of it, none or a part; whatever else fails ends the load.
            if error.errno != "ENOSPC":
                raise
            self.world.counts["full"] += 1
        with self.world.lock:
            self.volume.busy.difference_update(self.inflight.pop(cookie)[0])

    def submit(self, handle):
        choice = self.random.random()
        if choice < 0.70:
            self.write(handle)
        elif choice < 0.80:
            self.zero(handle)
        elif choice < 0.87:
            self.trim(handle)
        elif choice < 0.93:
            self.flush(handle)
        else:
            self.read(handle)

    def claim(self, unit, most):
        """A run of blocks that no request in flight touches, as a range; None if the dice say otherwise."""
        units = self.volume.blocks // unit
        first = self.random.randrange(units)
        count = min(units - first, 1 + self.random.randrange(most))
        blocks = range(first * unit, (first + count) * unit)
        if not self.volume.busy.isdisjoint(blocks):
            return None
        self.volume.busy.update(blocks)
        return blocks

    def write(self, handle):
        world = self.world
        with world.lock:
            blocks = self.claim(1, self.random.choice((1, 1, 4, 40)))
            if blocks is None:
                return
            world.number += 1
            number = world.number
            values = self.add(blocks, number)
        payload = b"".join(sectors_of(self.volume.index, block, number) for block in blocks)
        flags = self.flags()
        buffer = nbd.Buffer.from_bytearray(bytearray(payload))
        self.sent(handle.aio_pwrite(buffer, blocks.start * BLOCK, flags=flags), "writes", blocks, values, flags)

    def zero(self, handle):
        with self.world.lock:
            blocks = self.claim(1, self.random.choice((1, 8, 64)))
            if blocks is None:
                return
            values = self.add(blocks, 0)
        flags = self.flags() | self.random.choice((0, nbd.CMD_FLAG_NO_HOLE))
        cookie = handle.aio_zero(len(blocks) * BLOCK, blocks.start * BLOCK, flags=flags)
        self.sent(cookie, "zeroes", blocks, values, flags)

    def trim(self, handle):
        """Whole blocks of the pool become zeroes; those that the ends cover partly keep their bytes."""
        with self.world.lock:
            blocks = self.claim(PER_POOL_BLOCK, 4)
            if blocks is None:
                return
            values = self.add(blocks, 0)
        begin = blocks.start * BLOCK - self.random.choice((0, 512, 40000))
        end = blocks.stop * BLOCK + self.random.choice((0, 512, 40000))
        begin, end = max(0, begin), min(self.world.size - 512, end)
        if end < blocks.stop * BLOCK:
            end = blocks.stop * BLOCK
        flags = self.flags()
        self.sent(handle.aio_trim(end - begin, begin, flags=flags), "trims", blocks, values, flags)

    def flags(self):
        return nbd.CMD_FLAG_FUA if self.random.random() < 0.05 else 0

    def add(self, blocks, number):
        submitted = self.world.now()
        values = [Value(number, submitted) for _ in blocks]
        for block, value in zip(blocks, values):
            self.volume.histories[block].append(value)
        return values

    def sent(self, cookie, kind, blocks, values, flags):
        def answered():
            with self.world.lock:
                moment = self.world.now()
                for value in values:
                    value.answered = moment
                    value.durable = flags & nbd.CMD_FLAG_FUA != 0
                self.world.counts[kind] += 1

        self.inflight[cookie] = (blocks, answered)

    def flush(self, handle):
        with self.world.lock:
            submitted = self.world.now()

        def answered():
            with self.world.lock:
                self.volume.flushed = max(self.volume.flushed, submitted)
                self.world.counts["flushes"] += 1

        self.inflight[handle.aio_flush()] = ((), answered)

    def read(self, handle):
        with self.world.lock:
            blocks = self.claim(1, 16)
            if blocks is None:
                return
        buffer = nbd.Buffer(len(blocks) * BLOCK)

        def answered():
            content = buffer.to_bytearray()
            for index, block in enumerate(blocks):
                number = number_in(self.volume.index, block, content[index * BLOCK : (index + 1) * BLOCK])
                expected = self.volume.present(block)
                if number not in expected:
                    self.world.problems.append(f"{self.volume.name} block {block} reads {number}, not {expected}")
            with self.world.lock:
                self.world.counts["reads"] += 1

        self.inflight[handle.aio_pread(buffer, blocks.start * BLOCK)] = (blocks, answered)


class Administrator:
    """Takes snapshots of all volumes at once, judges them, clones and removes them, until the server is gone."""

    def __init__(self, world, seed):
        self.world = world
        self.random = random.Random(seed)

    def run(self):
        try:
            while not self.world.stopping:
                self.round()
        except Gone:
            pass  # It was killed, as it should be.
        except (nbd.Error, Refused) as error:
            self.world.problems.append(f"the administrator: {error}")

    def round(self):
        world = self.world
        time.sleep(self.random.random() * 0.1)
        world.number += 1
        names = [f"{volume.name}@s{world.number}" for volume in world.volumes]
        with world.lock:
            begin = world.now()
        self.command(names, verb="snapshot", names=names)
        with world.lock:
            end = world.now()
        # What follows reads the snapshots; until it is done their content is anybody's guess, but they are there.
        for name in names:
            world.digests.setdefault(name, None)
        contents = [self.read(name) for name in names]
        # No lock: what is added to the histories meanwhile was submitted after `end`.
        world.judge_snapshot(begin, end, contents)
        for name, content in zip(names, contents):
            world.digests[name] = hashlib.sha256(content).hexdigest()
        world.counts["snapshots"] += 1
        clone = f"fork{world.number}"
        self.command([clone], verb="clone", source=names[0], name=clone)
        world.digests[clone] = world.digests[names[0]]
        if len(world.digests) > 4:
            doomed = self.random.sample(sorted(world.digests), 3)
            for name in doomed:
                del world.digests[name]
            self.command(doomed, verb="rm", names=doomed, dry_run=False, force=True)

    def command(self, about, **command):
        """Between a command and its answer nothing is certain about the names that it is about."""
        self.world.uncertain.update(about)
        control(self.world.control, **command)
        self.world.uncertain.difference_update(about)

    def read(self, name):
        handle = connect(self.world.socket, name)
        try:
            content = read_all(handle, self.world.size)
            handle.shutdown()
            return content
        except nbd.Error as error:
            if handle.aio_is_dead() or handle.aio_is_closed():
                raise Gone(str(error))
            raise


world = None


def crash_world(**options):
    global world
    world = World(**options)


def crash_start():
    world.start()


def crash_stop():
    """Stops the load, or notes that its server is gone. Tells which names must and which may be there."""
    world.stopping = True
    world.join()
    # Snapshots that were not yet read are there, with a content that nobody has seen.
    certain = [volume.name for volume in world.volumes] + list(world.digests)
    uncertain = list(world.uncertain)
    world.digests = {name: digest for name, digest in world.digests.items() if digest is not None}
    return {"certain": certain, "uncertain": uncertain, "counts": world.counts, "problems": world.problems}


def crash_forget(there):
    """Removes what is there without anybody knowing its content."""
    known = {volume.name for volume in world.volumes} | set(world.digests)
    names = [name for name in there if name not in known]
    if names:
        control(world.control, verb="rm", names=names, dry_run=False, force=True)
    world.uncertain = set()


def crash_verify():
    world.verify()
    return world.problems


commands = {
    "crash_world": crash_world,
    "crash_start": crash_start,
    "crash_stop": crash_stop,
    "crash_forget": crash_forget,
    "crash_verify": crash_verify,
}
