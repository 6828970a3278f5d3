"""Small contents that tell volumes apart, and simple requests on ranges."""

import nbd

from agent import Gone, connect

LENGTH = 64
# Bytes of one request.
PIECE = 1 << 20


def stamp(socket, name, text):
    """Writes the stamp and flushes it. Raises Gone if the server dies meanwhile."""
    handle = connect(socket, name)
    try:
        handle.pwrite(text.encode().ljust(LENGTH, b"."), 0)
        handle.flush()
        handle.shutdown()
    except nbd.Error as error:
        if handle.aio_is_dead() or handle.aio_is_closed():
            raise Gone(str(error))
        raise


def stamps(socket, names):
    """The stamp of each volume; empty where nothing was written."""
    found = {}
    for name in names:
        handle = connect(socket, name)
        found[name] = bytes(handle.pread(LENGTH, 0)).rstrip(b".\0").decode()
        handle.shutdown()
    return found


def fill(socket, name, offset, length, byte):
    """Writes one byte all along, in large pieces, and flushes."""
    handle = connect(socket, name)
    for begin in range(0, length, PIECE):
        handle.pwrite(bytes([byte]) * min(PIECE, length - begin), offset + begin)
    handle.flush()
    handle.shutdown()


def trim(socket, name, offset, length):
    """Trims and flushes."""
    handle = connect(socket, name)
    handle.trim(length, offset)
    handle.flush()
    handle.shutdown()


def nonzero_bytes(socket, name, offset, length):
    """How many bytes of a range are not zero."""
    handle = connect(socket, name)
    count = 0
    for begin in range(0, length, PIECE):
        piece = min(PIECE, length - begin)
        count += piece - handle.pread(piece, offset + begin).count(0)
    handle.shutdown()
    return count


def try_to_change(socket, name):
    """Tries what a read-only export has to refuse: for each request the name of its error, or nothing."""
    handle = connect(socket, name)
    # The client is to send what it knows to be refused.
    handle.set_strict_mode(0)
    attempts = {
        "write": lambda: handle.pwrite(b"x" * 512, 0),
        "trim": lambda: handle.trim(65536, 0),
        "zero": lambda: handle.zero(65536, 0),
        "cache": lambda: handle.cache(65536, 0),
        "flush": handle.flush,
    }
    errors = {}
    for kind, attempt in attempts.items():
        try:
            attempt()
            errors[kind] = ""
        except nbd.Error as error:
            errors[kind] = error.errno
    handle.shutdown()
    return errors


commands = {
    "stamp": stamp,
    "stamps": stamps,
    "fill": fill,
    "trim": trim,
    "nonzero_bytes": nonzero_bytes,
    "try_to_change": try_to_change,
}
