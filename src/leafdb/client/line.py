"""What a blocking connection stands on: a socket of the system's, or one under TLS (`blocking_tls`)."""

from __future__ import annotations

from typing import Protocol


class Line(Protocol):
    """What is asked of a connected socket."""

    def fileno(self) -> int:
        """The descriptor, to be polled: readable when `recv` gives something."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Some bytes, b"" at the end; BlockingIOError when there are none yet."""

    def send(self, data: bytes | memoryview, flags: int = 0, /) -> int:
        """How much was taken; BlockingIOError when nothing was."""

    def sendall(self, data: bytes, /) -> None:
        """Wait until all is taken."""

    def settimeout(self, seconds: float | None, /) -> None:
        """How long `recv` and `sendall` wait."""

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None:
        """As a socket's."""

    def shutdown(self, how: int, /) -> None:
        """End both directions, waking who waits."""

    def close(self) -> None:
        """Let the descriptor go."""
