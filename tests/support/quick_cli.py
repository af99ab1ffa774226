"""`leafdb` without its start, which costs more than most commands: one process has imported the command line, and forks
for each command that a script types.

    SHIM     what stands as `leafdb` on the path: hands its words, environment, directory and the three streams to that
             process through a socket, and ends with the exit code that comes back
    serve    that process: `python -m support.quick_cli SOCKET`

The shim is a person too: where the words have PLAN_ID it types the id of the plan that was shown last.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final, NoReturn

MESSAGE_BYTES_MAX: Final = 1 << 20
BROKEN: Final = 70

SHIM: Final = """\
#!{python} -IS
import os, re, socket, sys
stage = os.environ["STAGE"]
shown = stage + "/plan"
words = sys.argv[1:]
if "PLAN_ID" in words:
    plan = re.search("[0-9a-f]{{32}}", open(shown).read()).group()
    words = [plan if word == "PLAN_ID" else word for word in words]
looks = words[:2] == ["cluster", "plan"]
out = os.open(shown, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if looks else 1
server = socket.socket(socket.AF_UNIX)
server.connect(stage + "/cli")
environment = [name + "=" + value for name, value in os.environ.items()]
message = "\\0".join([os.getcwd(), str(len(words)), *words, *environment]).encode()
socket.send_fds(server, [len(message).to_bytes(4, "big")], [0, out, 2])
server.sendall(message)
code = server.recv(1)
if looks:
    sys.stdout.write(open(shown).read())
    sys.stdout.flush()
sys.exit(code[0] if code else 70)
"""


def serve(path: Path) -> NoReturn:
    """Fork for each command, until killed."""
    import rich.console  # all of this once, for all
    import rich.live
    import rich.table
    import rich.text  # noqa: F401

    import leafdb.client.connect  # noqa: F401
    from leafdb_cli import bucket, cluster, kv, node, repair, ring, status, transfer  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _run(connection)
        connection.close()


def _run(connection: socket.socket) -> NoReturn:
    """A command, in a process of its own."""
    from leafdb_cli.main import main

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code: object = BROKEN
    try:
        head, streams, _, _ = socket.recv_fds(connection, 4, 3)
        message = b""
        while len(message) < int.from_bytes(head, "big"):
            message += connection.recv(MESSAGE_BYTES_MAX)
        directory, count, *rest = message.decode().split("\0")
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # they are the process's own
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        os.chdir(directory)
        os.environ.clear()
        for each in rest[int(count) :]:
            name, _, value = each.partition("=")
            os.environ[name] = value
        main(rest[: int(count)])
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([code if isinstance(code, int) else BROKEN]))
        os._exit(0)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
