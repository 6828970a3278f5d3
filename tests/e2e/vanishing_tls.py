"""Clients that speak TLS with a server and vanish at every moment, without a word.

usage: vanishing_tls.py PORT EXPORT AUTHORITY CLIENTS
"""
import socket
import ssl
import struct
import sys

OPTION = 0x49484156454F5054


def receive(conn, length):
    got = b""
    while len(got) < length:
        more = conn.recv(length - len(got))
        if not more:
            raise EOFError("the server has closed")
        got += more
    return got


def connected(port):
    """Up to the reply that lets TLS begin."""
    conn = socket.create_connection(("127.0.0.1", port))
    receive(conn, 18)
    conn.sendall(struct.pack(">IQII", 3, OPTION, 5, 0))
    assert struct.unpack(">QIII", receive(conn, 20))[2] == 1
    return conn


def vanish(port, export, context, at):
    conn = connected(port)
    if at % 2 == 0:
        # The end is a reset then, also with nothing left to read.
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    moment = at % 7
    if moment == 0:
        return conn.close()
    if moment == 1:
        # Half of the head of a record.
        conn.sendall(b"\x16\x03\x01")
        return conn.close()
    tls = context.wrap_socket(conn, server_hostname="localhost", do_handshake_on_connect=moment != 2)
    if moment == 2:
        tls.setblocking(False)
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return tls.close()
    if moment > 3:
        name = export.encode()
        tls.sendall(struct.pack(">QIII", OPTION, 7, len(name) + 6, len(name)) + name + bytes(2))
        while struct.unpack(">QIII", receive(tls, 20))[2] != 1:
            receive(tls, 12)
    if moment > 4:
        # A large read of which little is taken, or a large write of which half is sent.
        command, length = (0, 8 << 20) if moment == 5 else (1, 1 << 20)
        tls.sendall(struct.pack(">IHHQQI", 0x25609513, 0, command, 1, 0, length))
        if moment == 6:
            tls.sendall(bytes(length // 2))
        else:
            receive(tls, 1000)
    # The bytes of a record that is cut off.
    raw = socket.socket(fileno=tls.detach())
    raw.sendall(b"\x17\x03\x03\x40\x00half")
    raw.close()


def main():
    port, export, authority, clients = sys.argv[1:]
    context = ssl.create_default_context(cafile=authority)
    for at in range(int(clients)):
        vanish(int(port), export, context, at)


main()
