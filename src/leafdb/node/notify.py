"""Telling systemd how we are: READY, STATUS, WATCHDOG, STOPPING, as datagrams to $NOTIFY_SOCKET (Type=notify).

Without that variable every call does nothing. A message that cannot be sent is dropped: whether systemd listens must
not decide whether the node serves. The watchdog is fed from the event loop, so that a loop that hangs is restarted.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress

import trio


class Notifier:
    """The socket systemd gave us, or nothing."""

    def __init__(self, environment: Mapping[str, str], *, pid: int) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.watchdog_s: float | None = _watchdog_s(environment, pid)
        """How often systemd wants to hear of us; None when it does not."""

    def send(self, **fields: str | int) -> None:
        """One message of `NAME=value` lines."""
        if self._address is None:
            return
        message = "\n".join(f"{name}={_one_line(str(value))}" for name, value in fields.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.connect(self._address)
            sender.send(message.encode())

    def ready(self, status: str) -> None:
        """Started: requests are taken."""
        self.send(READY=1, STATUS=status)

    def status(self, status: str) -> None:
        """A word for `systemctl status`."""
        self.send(STATUS=status)

    def stopping(self, status: str, extend_s: float) -> None:
        """On the way out; give us so much time before using force."""
        self.send(STOPPING=1, STATUS=status, EXTEND_TIMEOUT_USEC=int(extend_s * 1_000_000))

    async def feed_watchdog(self) -> None:
        """Say every half period that the event loop turns; return at once when nobody listens."""
        if self._address is None or self.watchdog_s is None:
            return
        while True:
            self.send(WATCHDOG=1)
            await trio.sleep(self.watchdog_s / 2)


def _address(name: str) -> str | None:
    if name.startswith("/"):
        return name
    return "\0" + name[1:] if name.startswith("@") and len(name) > 1 else None


def _watchdog_s(environment: Mapping[str, str], pid: int) -> float | None:
    """The period, when it is meant for this process."""
    period, meant_for = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not period.isdecimal() or int(period) <= 0 or (meant_for and meant_for != str(pid)):
        return None
    return int(period) / 1_000_000


def _one_line(text: str) -> str:
    return " ".join(text.split())
