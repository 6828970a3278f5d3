"""Clients that ask for much at once and read none of the answers until later, on bare sockets."""

import socket as sockets
import struct
import threading
import time

REQUEST = struct.Struct(">IHHQQI")
REPLY = struct.Struct(">II8s")


class Client:
    def __init__(self, path, export):
        self.socket = sockets.socket(sockets.AF_UNIX)
        self.socket.connect(path)
        self.receive(18)
        # Fixed newstyle, no zeroes; then NBD_OPT_EXPORT_NAME, which leads to simple replies.
        self.socket.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, len(export)) + export.encode())
        self.receive(10)

    def receive(self, count):
        content = b""
        while len(content) < count:
            piece = self.socket.recv(count - len(content))
            assert piece, "the server hung up"
            content += piece
        return content

    def ask(self, depth, length, begin):
        for index in range(depth):
            self.socket.sendall(REQUEST.pack(0x25609513, 0, 0, index, begin + index * length, length))

    def take(self, depth, length):
        for _ in range(depth):
            magic, error, _ = REPLY.unpack(self.receive(REPLY.size))
            assert magic == 0x67446698 and error == 0, f"reply {magic:x}, error {error}"
            left = length
            while left > 0:
                left -= len(self.receive(min(left, 1 << 18)))


def flood(socket, export, connections, depth, length, rounds):
    """Every connection asks for `depth` READs, waits until the server can do no more, and only then reads."""
    clients = [Client(socket, export) for _ in range(connections)]
    for _ in range(rounds):
        for index, client in enumerate(clients):
            client.ask(depth, length, index * depth * length)
        time.sleep(2)
        threads = [threading.Thread(target=client.take, args=(depth, length)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


commands = {"flood": flood}
