"""The real processes of shards: how one is started, told something, heard, and how long its machine's data is held.

A shard is `leafdbd` with the arguments of its parent and `--shard I`: the same program reads the same configuration and
is one node of it. It is a session of its own, so that a control-C at the terminal reaches the parent alone. Its stdin
is where orders come from; its stderr is ours, so its log lines stand among ours, each with its node's name.

The parent holds a lock on DATA_DIR, and every shard inherits the descriptor: it is let go when the last of them has
ended, however the parent did. So the data directory is held while anybody is at work in it, and a parent that is
started anew cannot meet shards of the one before.

NOTIFY_SOCKET of a shard is a socket of the parent's, in the abstract namespace. The kernel says who wrote a message:
what others send there is not believed.
"""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import trio

from leafdb.errors import ConfigError
from leafdb.node.shard_parent import Child, Hear, Spawn
from leafdb.node.supervisor import Order
from leafdb.vfs.disk import DiskFileSystem

LOCK_PATH: Final = "LOCK"
WORDS_BYTES_MAX: Final = 4_096
_CREDENTIALS: Final = struct.Struct("iII")


class ShardProcess:
    """A running process."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        self._process = process
        self._orders = process.stdin
        self._telling = trio.Lock()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    async def tell(self, order: Order) -> None:
        """Pass an order on; nothing when it is gone."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with self._telling:
                await self._orders.send_all(order.value)

    def signal(self, number: signal.Signals) -> None:
        """Send one; nothing when it is gone."""
        self._process.send_signal(number)

    async def wait(self) -> int:
        """Its exit code, negative for the signal that killed it."""
        code = await self._process.wait()
        await self._orders.aclose()
        return code


@contextmanager
def data_held(data_dir: str) -> Iterator[int]:
    """Hold the data directory of all shards; the descriptor that does. Raises ConfigError, StoreLocked."""
    try:
        files = DiskFileSystem(data_dir)
    except OSError as error:
        raise ConfigError(f"node.data_dir: {data_dir} cannot be used: {error.strerror}") from None
    lock = files.lock(LOCK_PATH)
    try:
        yield lock.fileno()
    finally:
        lock.release()


def spawner(command: Sequence[str], environment: Mapping[str, str], ears: Ears, lock: int) -> Spawn:
    """Starts shards: `command` and the shard's number. `lock` is the descriptor each of them keeps."""
    told = {name: value for name, value in environment.items() if name != "WATCHDOG_PID"}
    told["NOTIFY_SOCKET"] = ears.address

    async def spawn(number: int) -> Child:
        process = await trio.lowlevel.open_process(
            [*command, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=told,
            pass_fds=(lock,),
            start_new_session=True,
        )
        return ShardProcess(process)

    return spawn


class Ears:
    """The socket at which shards say how they are, in the words of sd_notify. Close it in the end."""

    def __init__(self) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        made.bind("")  # a name of the kernel's choice
        self.address: Final = "@" + made.getsockname().lstrip(b"\0").decode("ascii")
        """What NOTIFY_SOCKET says."""
        self._socket = trio.socket.from_stdlib_socket(made)

    async def listen(self, hear: Hear) -> None:
        """Pass on what is said, with the number of the process that said it, until cancelled."""
        while True:
            data, ancillary, _, _ = await self._socket.recvmsg(WORDS_BYTES_MAX, socket.CMSG_SPACE(_CREDENTIALS.size))
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    pid, _, _ = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])
                    hear(pid, _words(data))

    def close(self) -> None:
        """Let the name go."""
        self._socket.close()


def _words(data: bytes) -> dict[str, str]:
    lines = (line.partition("=") for line in data.decode("utf-8", "replace").splitlines())
    return {name: value for name, equals, value in lines if equals}
