"""
Volumes beside a bytearray each: requests of every kind at any offset and length, many in flight at once, none of which
overlap where both matter. Snapshots are taken when everything is answered, and are copies of the bytearrays.
"""

import random

import nbd

from agent import connect, control, read_all

DEPTH = 12
KINDS = ("write", "write", "write", "trim", "trim", "zero", "no_hole", "fast", "fast_no_hole", "read", "flush")
ZEROING = ("trim", "zero", "no_hole")


class ModelVolume:
    def __init__(self, socket, name, size, pool_block, initial=None):
        self.name = name
        self.size = size
        self.pool_block = pool_block
        self.content = bytearray(size) if initial is None else bytearray(initial)
        # Two connections: what one has answered, the other has to see.
        self.handles = [connect(socket, name), connect(socket, name)]
        # Handle and cookie -> the byte range in flight and what its answer means.
        self.inflight = {}
        self.counts = {}

    def conflicts(self, kind, begin, end):
        """Whether a request in flight overlaps where the order matters; among those that only zero it does not."""
        return any(
            begin < other_end and other_begin < end and not (kind in ZEROING and other_kind in ZEROING)
            for other_begin, other_end, other_kind, _ in self.inflight.values()
        )

    def submit(self, dice):
        handle_index = dice.randrange(2)
        handle = self.handles[handle_index]
        length = dice.choice((1, 1, 2, 511, 512, 513, 4096, dice.randrange(1, 70000), dice.randrange(1, 400000)))
        begin = dice.choice((dice.randrange(self.size), dice.randrange(self.size) // self.pool_block * self.pool_block))
        if dice.random() < 0.05:
            begin = self.size - length
        begin = max(0, begin)
        end = min(self.size, begin + length)
        kind = dice.choice(KINDS)
        if self.conflicts(kind, begin, end):
            return
        flags = nbd.CMD_FLAG_FUA if dice.random() < 0.1 and kind not in ("read", "flush") else 0
        cookie, answered = getattr(self, kind)(handle, begin, end, flags, dice)
        self.inflight[handle_index, cookie] = (begin, end, kind, answered)
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def write(self, handle, begin, end, flags, dice):
        # Real bytes, or zeroes, or one byte all along: whatever a shortcut might mistake for something else.
        payload = dice.choice((dice.randbytes(end - begin), bytes(end - begin), bytes([dice.randrange(256)]) * (end - begin)))
        self.content[begin:end] = payload
        buffer = nbd.Buffer.from_bytearray(bytearray(payload))
        return handle.aio_pwrite(buffer, begin, flags=flags), done

    def trim(self, handle, begin, end, flags, _dice):
        """Whole blocks inside become zeroes, and so does the last of the volume where the range reaches its end."""
        unit = self.pool_block
        first = -(-begin // unit) * unit
        last = self.size if end == self.size else end // unit * unit
        if first < last:
            self.content[first:last] = bytes(last - first)
        return handle.aio_trim(end - begin, begin, flags=flags), done

    def zero(self, handle, begin, end, flags, _dice):
        self.content[begin:end] = bytes(end - begin)
        return handle.aio_zero(end - begin, begin, flags=flags), done

    def no_hole(self, handle, begin, end, flags, dice):
        return self.zero(handle, begin, end, flags | nbd.CMD_FLAG_NO_HOLE, dice)

    def fast(self, handle, begin, end, flags, _dice):
        """Fast or not at all: either all of it is zero, or nothing was touched."""

        def answered(succeeded):
            if succeeded:
                self.content[begin:end] = bytes(end - begin)

        return handle.aio_zero(end - begin, begin, flags=flags | nbd.CMD_FLAG_FAST_ZERO), answered

    def fast_no_hole(self, handle, begin, end, flags, dice):
        cookie, _ = self.fast(handle, begin, end, flags | nbd.CMD_FLAG_NO_HOLE, dice)

        def answered(succeeded):
            assert not succeeded, "NO_HOLE is never fast"

        return cookie, answered

    def read(self, handle, begin, end, _flags, _dice):
        buffer = nbd.Buffer(end - begin)
        expected = bytes(self.content[begin:end])

        def answered(succeeded):
            assert succeeded
            differs(self.name, begin, buffer.to_bytearray(), expected)

        return handle.aio_pread(buffer, begin), answered

    def flush(self, handle, _begin, _end, _flags, _dice):
        return handle.aio_flush(), done

    def retire(self):
        """Takes what has been answered, waiting for at least something."""
        for index, handle in enumerate(self.handles):
            waiting = [key for key in self.inflight if key[0] == index]
            if waiting:
                handle.poll(50)
            for key in waiting:
                try:
                    if not handle.aio_command_completed(key[1]):
                        continue
                    succeeded = True
                except nbd.Error as error:
                    if error.errno != "ENOTSUP":
                        raise
                    succeeded = False
                self.inflight.pop(key)[3](succeeded)

    def drain(self):
        while self.inflight:
            self.retire()

    def close(self):
        for handle in self.handles:
            handle.shutdown()


def done(succeeded):
    assert succeeded, "only FAST_ZERO may be refused"


def differs(name, begin, found, expected):
    if found == expected:
        return
    at = next(at for at in range(len(expected)) if found[at] != expected[at])
    raise AssertionError(f"{name} differs from the model at {begin + at}: {found[at]} instead of {expected[at]}")


def model_run(socket, control_socket, volumes, pool_block, rounds, seed):
    """
    Runs `rounds` rounds on volumes, given as name and size, with snapshots, clones, rollbacks and removals between them.
    In the end all that is there is compared with the model.
    """
    dice = random.Random(seed)
    models = {name: ModelVolume(socket, name, size, pool_block) for name, size in volumes}
    snapshots = {}
    counts = {}
    for serial in range(rounds):
        for _ in range(120):
            model = dice.choice(list(models.values()))
            if len(model.inflight) < DEPTH:
                model.submit(dice)
            else:
                model.retire()
        for model in models.values():
            model.drain()
        taken = {f"{name}@s{serial}": bytes(model.content) for name, model in models.items()}
        control(control_socket, verb="snapshot", names=list(taken))
        snapshots.update(taken)
        if dice.random() < 0.3:
            source = dice.choice(list(snapshots))
            name = f"fork{serial}"
            control(control_socket, verb="clone", source=source, name=name)
            models[name] = ModelVolume(socket, name, len(snapshots[source]), pool_block, snapshots[source])
        if len(snapshots) > 12:
            doomed = dice.sample(list(snapshots), 6)
            control(control_socket, verb="rm", names=doomed, dry_run=False, force=False)
            for name in doomed:
                del snapshots[name]
        if len(models) > 5:
            name = dice.choice(list(models))
            models[name].close()
            add(counts, models.pop(name).counts)
            control(control_socket, verb="rm", names=[name], dry_run=False, force=True)
    for model in models.values():
        model.close()
        add(counts, model.counts)
    contents = {**{name: model.content for name, model in models.items()}, **snapshots}
    for name, content in contents.items():
        handle = connect(socket, name, structured=dice.random() < 0.5)
        differs(name, 0, read_all(handle, len(content), 300001), content)
        handle.shutdown()
    return counts


def add(total, counts):
    for kind, count in counts.items():
        total[kind] = total.get(kind, 0) + count


def write_on_one(socket, name, offset, length, byte):
    """Writes on one connection and flushes on another; both stay as they are until the server dies."""
    writer, flusher = connect(socket, name), connect(socket, name)
    assert writer.can_multi_conn(), "the export says that it can have many connections"
    writer.pwrite(bytes([byte]) * length, offset)
    flusher.flush()
    kept.extend((writer, flusher))


# Connections that nobody closes.
kept = []


def read_byte(socket, name, offset, length):
    """The byte that a range consists of."""
    handle = connect(socket, name)
    content = handle.pread(length, offset)
    handle.shutdown()
    assert content == content[:1] * length, "the range holds more than one value"
    return content[0]


commands = {"model_run": model_run, "write_on_one": write_on_one, "read_byte": read_byte}
