"""A thread that reads what a load has written, over and over, while a test does things to the cluster."""

from __future__ import annotations

import threading
import time
from random import Random
from typing import Final

from leafdb import Found
from leafdb.client.options import Quorum
from leafdb.errors import LeafdbError
from support.processes import WAIT_S, Cluster, Load

IDLE_S: Final = 0.01


class Reader:
    """Gets keys whose write was acknowledged, one at a time, and remembers what came of it.

    A key is written once. So an answer is right if it is that value, and every other is kept in `wrong`; `failed` is
    for errors, which are typed or `check` says so.
    """

    def __init__(self, cluster: Cluster, load: Load, seed: int, r: Quorum = "quorum") -> None:
        self.found = 0
        self.failed: list[LeafdbError] = []
        self.wrong: list[str] = []
        self._load = load
        self._client = cluster.connect(timeout=5.0)
        self._rng = Random(seed)
        self._r = r
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(WAIT_S)
        self._client.close()

    def check(self) -> None:
        """It read, what it read was right, and what failed may be tried again."""
        assert not self.wrong, self.wrong[:3]
        assert self.found
        hard = [error for error in self.failed if not error.retryable]
        assert not hard, hard

    def _work(self) -> None:
        known: list[tuple[tuple[str, str], bytes]] = []
        while not self._stopping.is_set():
            if len(self._load.acknowledged) > len(known):
                known = list(self._load.acknowledged.copy().items())
            if not known:
                time.sleep(IDLE_S)
                continue
            (bucket, key), value = self._rng.choice(known)
            try:
                answer = self._client.bucket(bucket).get(key, r=self._r)
            except LeafdbError as error:
                self.failed.append(error)
            except BaseException as error:
                self.wrong.append(f"{key}: {error!r}")
                return
            else:
                if isinstance(answer, Found) and answer.value == value:
                    self.found += 1
                else:
                    self.wrong.append(f"{key}: {answer}")
