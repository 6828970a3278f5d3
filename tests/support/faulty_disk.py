"""A file system of one disk that does as it is told: for tests of what becomes of a server whose disk fails or stalls.

usage: faulty_disk.py FOLDER [written-through] NAME=BYTES...

Mounts FOLDER through FUSE with these files, whose bytes are in memory here: the "disk". The host keeps its page cache in
front of it, as for any disk. Commands come as lines on stdin, and each is answered with a line:

  delay OPERATION MS      each read, write or fsync takes so long from now on
  fail OPERATION NAME BEGIN END   each read or write that touches the range is not done and fails with EIO
  heal                    nothing fails or is slow any more
  peek NAME BEGIN END     the bytes on the disk, in hexadecimal
  count                   reads, writes and fsyncs so far

With `written-through` each write call of a program waits for the disk; else the host writes back when it is flushed.
"""
import array
import errno
import os
import socket
import struct
import subprocess
import sys
import threading
import time

LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE = 1, 2, 3, 4, 14, 15, 16, 17, 18
FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, ACCESS = 20, 25, 26, 27, 28, 29, 34
INTERRUPT, DESTROY, BATCH_FORGET = 36, 38, 42
# From linux/fuse.h.
ASYNC_READ, BIG_WRITES, WRITEBACK_CACHE, MAX_PAGES = 1 << 0, 1 << 5, 1 << 16, 1 << 22
KEEP_CACHE = 1 << 1
SET_SIZE = 1 << 3
NAMED = {READ: "read", WRITE: "write", FSYNC: "fsync"}


class Disk:
    def __init__(self, fd, writes_back, files):
        self.fd = fd
        self.writes_back = writes_back
        self.names = list(files)
        self.bytes = [bytearray(size) for size in files.values()]
        self.delays = {}
        self.failing = []
        self.counts = dict.fromkeys(NAMED.values(), 0)
        self.lock = threading.Lock()

    def serve(self):
        while True:
            try:
                request = os.read(self.fd, (1 << 20) + 4096)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                raise
            opcode = struct.unpack_from("<I", request, 4)[0]
            name = NAMED.get(opcode)
            if name is not None:
                self.counts[name] += 1
            if self.delays.get(name, 0) > 0:
                threading.Thread(target=self.answer, args=(request, self.delays[name]), daemon=True).start()
            else:
                self.answer(request, 0)

    def answer(self, request, delay_s):
        time.sleep(delay_s)
        _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            return
        with self.lock:
            result = self.perform(opcode, node, memoryview(request)[40:])
        body = b"" if isinstance(result, int) else result
        failed = result if isinstance(result, int) else 0
        try:
            os.write(self.fd, struct.pack("<IiQ", 16 + len(body), -failed, unique) + body)
        except OSError:
            # Nothing waits for it any more.
            pass

    def perform(self, opcode, node, body):
        if opcode == INIT:
            flags = ASYNC_READ | BIG_WRITES | MAX_PAGES | (WRITEBACK_CACHE if self.writes_back else 0)
            return struct.pack("<IIIIHHIIHHII24x", 7, 31, 1 << 17, flags, 64, 48, 1 << 20, 1, 256, 0, 0, 0)
        if opcode == LOOKUP:
            name = bytes(body).rstrip(b"\0").decode()
            if name not in self.names:
                return errno.ENOENT
            found = self.names.index(name) + 2
            return struct.pack("<QQQQII", found, 0, 3600, 3600, 0, 0) + self.attributes(found)
        if opcode in (GETATTR, SETATTR):
            if opcode == SETATTR and struct.unpack_from("<I", body)[0] & SET_SIZE:
                self.resize(self.bytes[node - 2], struct.unpack_from("<Q", body, 16)[0])
            return struct.pack("<QII", 3600, 0, 0) + self.attributes(node)
        if opcode in (OPEN, OPENDIR):
            return struct.pack("<QIi", 0, KEEP_CACHE, 0)
        if opcode == READ:
            offset, size = struct.unpack_from("<QI", body, 8)
            if self.fails("read", node, offset, size):
                return errno.EIO
            return bytes(self.bytes[node - 2][offset:offset + size])
        if opcode == WRITE:
            return self.write(node, body)
        if opcode == STATFS:
            return struct.pack("<QQQQQIIII24x", 1 << 30, 1 << 29, 1 << 29, 1 << 20, 1 << 19, 4096, 255, 4096, 0)
        if opcode == READDIR:
            return b""
        if opcode in (RELEASE, RELEASEDIR, FSYNC, FLUSH, ACCESS, DESTROY):
            return b""
        return errno.ENOSYS

    def write(self, node, body):
        offset, size = struct.unpack_from("<QI", body, 8)
        if self.fails("write", node, offset, size):
            return errno.EIO
        disk = self.bytes[node - 2]
        if len(disk) < offset + size:
            self.resize(disk, offset + size)
        disk[offset:offset + size] = body[40:40 + size]
        return struct.pack("<II", size, 0)

    def fails(self, operation, node, offset, size):
        return any((operation, node) == failing[:2] and offset < failing[3] and failing[2] < offset + size
                   for failing in self.failing)

    def resize(self, disk, size):
        del disk[size:]
        disk.extend(bytes(size - len(disk)))

    def attributes(self, node):
        isFile = node >= 2
        size = len(self.bytes[node - 2]) if isFile else 0
        mode = 0o100600 if isFile else 0o40700
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1,
                           os.getuid(), os.getgid(), 0, 4096, 0)

    def obey(self, words):
        with self.lock:
            if words[0] == "delay":
                self.delays[words[1]] = int(words[2]) / 1000
            elif words[0] == "fail":
                node = self.names.index(words[2]) + 2
                self.failing.append((words[1], node, int(words[3]), int(words[4])))
            elif words[0] == "heal":
                self.failing = []
                self.delays = {}
            elif words[0] == "peek":
                return self.bytes[self.names.index(words[1])][int(words[2]):int(words[3])].hex()
            elif words[0] == "count":
                return " ".join(f"{name} {count}" for name, count in self.counts.items())
            else:
                return "no such command"
        return "done"


def mount(folder):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        subprocess.run(
            ["fusermount3", "-o", "fsname=faulty-disk", "--", folder],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            check=True,
        )
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
        fds = array.array("i")
        fds.frombytes(ancillary[0][2][:4])
        return fds[0]


def main():
    folder, *words = sys.argv[1:]
    writes_back = "written-through" not in words
    files = {name: int(size) for name, size in (word.split("=") for word in words if "=" in word)}
    disk = Disk(mount(folder), writes_back, files)
    threading.Thread(target=disk.serve, daemon=True).start()
    print("mounted", flush=True)
    for line in sys.stdin:
        print(disk.obey(line.split()), flush=True)
    subprocess.run(["fusermount3", "-u", "-z", folder], check=False)


main()
