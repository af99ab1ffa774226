"""Connections that say whatever a test wants: bytes to a port of a real node, and what comes back until it hangs up."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final

from leafdb import BLIND, Found, NotApplied, OutcomeUnknown, Reason, SiblingBucket
from leafdb.client.sync_client import Client
from leafdb.errors import LeafdbError
from leafdb.limits import FRAME_BYTES_MAX
from leafdb.wire.errors import decode_error
from leafdb.wire.frame import Frame, FrameReader, encode_frame
from leafdb.wire.hello import encode_client_hello
from leafdb.wire.registry import MessageType
from support.processes import Cluster

TIMEOUT_S: Final = 30.0
HELLO: Final = encode_frame(MessageType.HELLO, 0, encode_client_hello("a test"))


class RawConnection:
    """One TCP connection to a port of this machine."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self._reader = FrameReader(FRAME_BYTES_MAX)
        self._frames: list[Frame] = []

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.socket.close()

    @classmethod
    def client(cls, port: int) -> RawConnection:
        """One that has shaken hands as a client."""
        connection = cls(port)
        connection.send(HELLO)
        welcome = connection.frame()
        assert welcome is not None
        assert welcome.type == MessageType.WELCOME
        return connection

    def send(self, data: bytes) -> None:
        """All of it, or as much as the node takes before it hangs up."""
        with suppress(ConnectionError):
            self.socket.sendall(data)

    def frame(self) -> Frame | None:
        """The next frame; None at the end. A reset is an end, too."""
        while not self._frames:
            try:
                data = self.socket.recv(65_536)
            except ConnectionError:
                return None
            if not data:
                return None
            self._frames += self._reader.feed(data)
        return self._frames.pop(0)

    def last_words(self) -> LeafdbError | None:
        """Wait for the end; the error the node closed the connection with, if it said one."""
        error = None
        while (frame := self.frame()) is not None:
            if frame.type == MessageType.ERROR:
                error = decode_error(frame.body)
        return error

    def everything(self) -> bytes:
        """Every byte until the end, for ports that speak no frames."""
        data = b""
        with suppress(ConnectionError):
            while more := self.socket.recv(65_536):
                data += more
        return data


class Witness:
    """A client in the background for whom everything must go on: it writes, reads and asks for pages all the time."""

    BUCKET = "witness"

    def __init__(self, cluster: Cluster, pages: Sequence[int] = (0, 1, 2)) -> None:
        """`pages`: the nodes whose pages are asked for, those that stay up all the time. Where that is not all of them,
        a write under way on one that dies may have an unknown outcome; it goes on with keys that nobody has written."""
        self._deaths = len(pages) < len(cluster.nodes)
        self._generation = 0
        self._pages = [cluster.nodes[index].http_port for index in pages]
        self._client: Client = cluster.connect()
        self._client.create_bucket(self.BUCKET, exist_ok=True)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._problems: list[str] = []
        self.rounds = 0

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(60.0)
        hangs = self._thread.is_alive()
        self._client.close()
        if exc is None:
            assert not hangs, "the witness hangs"
            assert not self._problems, self._problems[:3]
            assert self.rounds, "the witness was never served"

    def _work(self) -> None:
        bucket = self._client.bucket(self.BUCKET)
        try:
            while not self._stopping.is_set():
                try:
                    self._round(bucket)
                except (OutcomeUnknown, NotApplied) as error:
                    # A node that has just started, with a full disk and no sessions yet, can only refuse.
                    if not self._deaths or (isinstance(error, NotApplied) and error.reason is not Reason.DISK_FULL):
                        raise
                    self._generation += 1
                self.rounds += 1
                self._stopping.wait(0.01)
        except BaseException as error:
            self._problems.append(repr(error))

    def _round(self, bucket: SiblingBucket[bytes]) -> None:
        key, value = f"key-{self._generation}-{self.rounds % 50}", b"round %d" % self.rounds
        bucket.put(key, value, after=bucket.get(key).context)
        answer = bucket.get(key)
        if not isinstance(answer, Found) or answer.value != value:
            self._problems.append(f"{key}: {answer} instead of {value!r}")
        for port in self._pages:
            page(port, "/livez")
        bucket.put(f"blind-{self.rounds}", value, after=BLIND)


def page(port: int, path: str) -> str:
    """A page of a node, which must be there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        assert response.status == 200, f"{path}: {response.status} {body}"
        return body
    finally:
        connection.close()


def metric(port: int, name: str) -> float:
    """The value of a metric without labels."""
    for line in page(port, "/metrics").splitlines():
        if line.split(" ")[0] == name:
            return float(line.split(" ")[1])
    raise AssertionError(f"no metric {name}")
