"""Where the bytes of volumes come from, for pools made elsewhere: every data block begins with its number, plus one."""

import json

import nbd

from agent import connect

STAMP = 8


def check_mappings(socket, name, pool_block, expected_path):
    """
    Reads the beginning of virtual blocks and compares: a file holds pairs of virtual block and the stamp there, null for
    a hole. A hole has to come as a hole, and what is mapped as data. Gives the differences, at most a few.
    """
    with open(expected_path) as file:
        expected = json.load(file)
    handle = connect(socket, name)
    problems = []
    for vblock, stamp in expected:
        chunks = []
        content = handle.pread_structured(
            STAMP, vblock * pool_block, lambda _data, _offset, kind, _error: chunks.append(kind)
        )
        kind = nbd.READ_HOLE if stamp is None else nbd.READ_DATA
        if chunks != [kind] or int.from_bytes(content, "big") != (stamp or 0):
            problems.append(f"{name} block {vblock}: {content.hex()} as {chunks}, not {stamp}")
            if len(problems) > 5:
                break
    handle.shutdown()
    return problems


def put_stamps(socket, name, pool_block, stamps):
    """Writes stamps at the beginning of virtual blocks, many in flight, and flushes."""
    handle = connect(socket, name)
    cookies = []
    for vblock, stamp in stamps:
        buffer = nbd.Buffer.from_bytearray(bytearray(stamp.to_bytes(STAMP, "big")))
        cookies.append(handle.aio_pwrite(buffer, vblock * pool_block))
    wait(handle, cookies)
    handle.flush()
    handle.shutdown()


def discard(socket, name, pool_block, vblock, count):
    """Trims whole blocks."""
    handle = connect(socket, name)
    handle.trim(count * pool_block, vblock * pool_block)
    handle.flush()
    handle.shutdown()


def wait(handle, cookies):
    while cookies:
        handle.poll(1000)
        cookies = [cookie for cookie in cookies if not handle.aio_command_completed(cookie)]


commands = {"check_mappings": check_mappings, "put_stamps": put_stamps, "discard": discard}
