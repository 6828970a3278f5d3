"""
A client of a served pool for tests, built on libnbd: one command a line on stdin, one answer a line on stdout, both
JSON. `agent.ts` is the other side.

What a command needs lies in the modules beside this one; here is what is common to them.
"""

import http.client
import json
import socket
import sys

import nbd


class Refused(Exception):
    """The pool refused a command of the administrator."""


class Gone(Exception):
    """The server is not there any more."""


class ControlConnection(http.client.HTTPConnection):
    """HTTP over the control socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=120)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def control(path, **command):
    """Has the server carry out a command. Raises Refused, or Gone where it died before it answered."""
    connection = ControlConnection(path)
    try:
        connection.request("POST", "/v1/commands", json.dumps(command), {"content-type": "application/json"})
        answer = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Gone(str(error))
    finally:
        connection.close()
    if answer["kind"] == "refused":
        raise Refused(answer["reason"])
    return answer


def connect(path, export, structured=True):
    """A connection to an export. Raises Gone where no server answers."""
    handle = nbd.NBD()
    handle.set_export_name(export)
    handle.set_request_structured_replies(structured)
    handle.add_meta_context("base:allocation")
    try:
        handle.connect_unix(path)
    except nbd.Error as error:
        raise Gone(str(error))
    return handle


def read_all(handle, size, piece=1 << 20):
    """Every byte of an export, `piece` by `piece`."""
    content = bytearray()
    while len(content) < size:
        content += handle.pread(min(piece, size - len(content)), len(content))
    return content


def serve(commands):
    """Answers commands until stdin ends. What a command raises is an answer too."""
    for line in sys.stdin:
        request = json.loads(line)
        command = request.pop("command")
        try:
            answer = {"ok": commands[command](**request)}
        except Exception as error:  # Whatever went wrong is the test's to judge.
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def main():
    import flood
    import histories
    import mapping
    import model
    import names
    import stamps

    serve({**flood.commands, **stamps.commands, **histories.commands, **mapping.commands, **model.commands, **names.commands})


if __name__ == "__main__":
    main()
