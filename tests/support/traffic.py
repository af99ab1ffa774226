"""Clients that work all the while: each thread writes keys of its own, by read and write with a context as programs do,
and reads back what it wrote before. What fails after the client's own retries is kept; so is what was read and was not
what had been written.
"""

from __future__ import annotations

import threading
import time
from random import Random
from typing import Final

import leafdb
from leafdb import Found
from leafdb.client.sync_client import Client
from leafdb.errors import LeafdbError

KEYS_MAX: Final = 200_000
PAUSE_S: Final = 0.01
JOIN_S: Final = 60.0


class Traffic:
    """Use it as `with`. Afterwards `check` reads every acknowledged write back."""

    def __init__(self, client: Client, bucket: str, *, threads: int = 4, prefix: str = "key") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,), daemon=True) for number in range(threads)]
        self.acknowledged: dict[str, bytes] = {}
        self.failed: list[tuple[str, str, LeafdbError]] = []
        self.wrong: list[str] = []
        self.broken: list[BaseException] = []
        self.reads = 0
        self.slowest_s = 0.0

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(JOIN_S)
            assert not thread.is_alive(), "a client hangs"

    def figures(self) -> str:
        """For people."""
        return (
            f"{len(self.acknowledged)} writes acknowledged, {self.reads} reads, {len(self.failed)} failed, "
            f"{len(self.wrong)} wrong, the slowest took {self.slowest_s:.2f} s"
        )

    def check(self, client: Client) -> None:
        """No request failed, none was answered wrongly, and every acknowledged write is read as it was written.

        By a client of its own: the one that worked is closed by then.
        """
        assert not self.broken, self.broken[0]
        assert not self.failed, f"{len(self.failed)} failed, as {self.failed[0]}"
        assert not self.wrong, f"{len(self.wrong)} wrong, as {self.wrong[0]}"
        assert len(self.acknowledged) > 100, "the clients did not work"
        bucket = client.bucket(self._bucket)
        lost = []
        for key, value in self.acknowledged.items():
            answer = bucket.get(key)
            if not isinstance(answer, Found) or answer.value != value:
                lost.append(f"{key}: {answer}")
        assert not lost, f"{len(lost)} lost, as {lost[0]}"

    def _work(self, thread: int) -> None:
        rng = Random(thread)
        bucket = self._client.bucket(self._bucket)
        written: list[str] = []
        try:
            for number in range(KEYS_MAX):
                if self._stopping.wait(PAUSE_S):
                    return
                key = f"{self._prefix}-{thread}-{number}"
                if self._write(bucket, key, b"%d of %d " % (number, thread) * 8):
                    written.append(key)
                if written:
                    self._read(bucket, rng.choice(written))
        except BaseException as error:
            self.broken.append(error)

    def _write(self, bucket: leafdb.SiblingBucket[bytes], key: str, value: bytes) -> bool:
        begun = time.monotonic()
        try:
            bucket.put(key, value, after=bucket.get(key).context)
        except LeafdbError as error:
            self.failed.append(("write", key, error))
            return False
        self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
        self.acknowledged[key] = value
        return True

    def _read(self, bucket: leafdb.SiblingBucket[bytes], key: str) -> None:
        begun = time.monotonic()
        try:
            answer = bucket.get(key)
        except LeafdbError as error:
            self.failed.append(("read", key, error))
            return
        self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
        self.reads += 1
        if not isinstance(answer, Found) or answer.value != self.acknowledged[key]:
            self.wrong.append(f"{key}: {answer}")
