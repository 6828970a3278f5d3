"""Starts a program as systemd does: with listening sockets from descriptor 3 on.

activate.py PID|other ADDRESS... -- PROGRAM...: an ADDRESS is a path, or 0 for any port of 127.0.0.1. LISTEN_PID is the
program's, or that of another process.
"""
import os
import socket
import sys

words = sys.argv[1:]
end = words.index("--")
whose, addresses, program = words[0], words[1:end], words[end + 1:]
sockets = []
for address in addresses:
    bound = socket.socket(socket.AF_INET if address == "0" else socket.AF_UNIX)
    bound.bind(("127.0.0.1", 0) if address == "0" else address)
    bound.listen()
    sockets.append(bound)
# Out of the way first: one of them may be 3 already.
high = [os.dup2(each.fileno(), 100 + at, inheritable=False) for at, each in enumerate(sockets)]
for at, descriptor in enumerate(high):
    os.dup2(descriptor, 3 + at, inheritable=True)
    os.close(descriptor)
own = os.getpid()
os.environ["LISTEN_FDS"] = str(len(sockets))
os.environ["LISTEN_PID"] = str(own if whose == "PID" else own + 1)
os.execv(program[0], program)
