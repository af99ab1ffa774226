"""Random steps of everything at once, against a dict: nothing the engine does in the background is ever seen."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from leafdb.errors import StorageError
from leafdb.storage.lsm_tree import Page
from leafdb.types import Durability
from support.store import SMALL, TREE, Store

CONFIG = replace(SMALL, memtable_bytes=8_000, reads_queued_max=100_000)


class Run:
    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.store = Store(config=CONFIG)
        self.store.engine.create_tree(TREE)
        self.model: dict[bytes, bytes] = {}
        self.answers = 0
        self.steps = [
            (30, self.write),
            (6, self.read),
            (3, self.scan),
            (8, self.work),
            (10, self.job),
            (1, self.flush),
            (1, self.pass_time),
            (1, self.check),
        ]

    def key(self) -> bytes:
        return b"k%03d" % self.rng.randrange(150)

    def write(self) -> None:
        entries: list[tuple[int, bytes, bytes | None]] = []
        for _ in range(self.rng.choice((1, 1, 2))):
            key = self.key()
            value = None if self.rng.random() < 0.2 else self.rng.randbytes(self.rng.randrange(150))
            entries.append((TREE, key, value))
            if value is None:
                self.model.pop(key, None)
            else:
                self.model[key] = value
        self.store.engine.write(entries, self.rng.choice(list(Durability)))  # type: ignore[arg-type] # TreeId is an int

    def read(self) -> None:
        key = self.key()
        wanted = self.model.get(key)
        self.store.fs.cold = self.rng.random() < 0.5
        found = self.store.engine.get_now(TREE, key)
        if found is not None:
            assert found[0] == wanted
            return

        def answered(answer: tuple[bytes | None, int] | StorageError) -> None:
            self.answers += 1
            assert not isinstance(answer, StorageError)
            assert answer[0] == wanted

        self.store.engine.get_soon(TREE, key, answered)

    def scan(self) -> None:
        reverse = self.rng.random() < 0.5
        start, stop = sorted((self.key(), self.key()))
        limit = self.rng.randrange(1, 30)
        wanted = sorted((item for item in self.model.items() if start <= item[0] < stop), reverse=reverse)

        def answered(page: Page | StorageError) -> None:
            self.answers += 1
            assert isinstance(page, Page)
            assert page.items == wanted[: len(page.items)]
            assert len(page.items) <= limit
            if page.next_key is None:
                assert page.items == wanted
            else:
                rest = wanted[len(page.items) :]
                assert all(key < page.next_key if reverse else key >= page.next_key for key, _ in rest)

        self.store.engine.scan_soon(
            TREE, start, stop, limit=limit, bytes_max=self.rng.choice((500, 1 << 20)), reverse=reverse, done=answered
        )

    def work(self) -> None:
        self.store.executor.run_pending(self.rng.randrange(1, 5))

    def job(self) -> None:
        self.store.jobs.step()

    def flush(self) -> None:
        self.store.engine.flush_soon()

    def pass_time(self) -> None:
        self.store.now_s += 0.05
        self.store.engine.on_time(self.store.now_s)

    def check(self) -> None:
        self.store.engine.check()

    def go(self, steps: int) -> None:
        weights = [weight for weight, _ in self.steps]
        actions = [action for _, action in self.steps]
        for action in self.rng.choices(actions, weights, k=steps):
            action()


@pytest.mark.parametrize("seed", range(8))
def test_reads_and_scans_agree_with_a_dict_whatever_runs_in_between(seed: int) -> None:
    run = Run(seed)
    run.go(1500)
    run.store.settle()
    run.check()
    stats = run.store.engine.stats()
    assert stats.flushes > 3
    assert stats.compactions > 0
    assert run.answers > 50
    assert dict(run.store.items(limit=50)) == run.model
    run.store.close()
    again = Store(run.store.fs, CONFIG)
    assert again.items(limit=50) == sorted(run.model.items())
    again.settle()
    assert again.items(limit=50, reverse=True) == sorted(run.model.items(), reverse=True)
    again.engine.check()
    assert len(again.fs.list("tables")) == again.engine.stats().tables
