"""Power goes after every call of a history with snapshots: what has a snapshot's name is whole, whenever it goes.

A snapshot that is there under its name opens as a store, holds a prefix of the writes with everything that was
acknowledged before it was asked for, and lies there for good once it was answered; the store itself opens and has lost
nothing, whatever became of its snapshots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from leafdb.errors import StorageError
from leafdb.storage.snapshot_files import Snapshot, snapshot_path
from leafdb.types import Durability
from leafdb.vfs.memory import MemoryFileSystem
from support.store import SMALL, TREE, Store

TINY = replace(SMALL, memtable_bytes=4_000, file_number_lease=4, manifest_bytes_max=700)
NAMES = ("a", "b", "c")


class History:
    """Writes, and between them snapshots that come and go."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.log: list[tuple[bytes, bytes | None]] = []
        self.synced = 0
        self.asked: dict[str, int] = {}
        """The acknowledged writes when the snapshot now at a name was asked for."""
        self.answered: dict[str, int] = {}
        """Snapshots that are there for good, with their sequences, until they are asked to go."""
        self.made = self.dropped = 0

    def run(self, store: Store, writes: int) -> None:
        store.engine.create_tree(TREE)
        store.settle()
        rng = self.rng
        for number in range(writes):
            value = None if rng.random() < 0.15 else b"%04d" % number + rng.randbytes(rng.randrange(150))
            self.log.append((b"key%02d" % rng.randrange(30), value))
            store.engine.write([(TREE, *self.log[-1])], Durability.ALWAYS, self.acknowledger(len(self.log)))
            if rng.random() < 0.3:
                self.toggle(store, rng.choice(NAMES))
            if rng.random() < 0.5:
                store.executor.run_pending(rng.choice((1, 3, 9)))
            if rng.random() < 0.15:
                store.settle()
        store.settle()

    def toggle(self, store: Store, name: str) -> None:
        if name in self.answered:
            del self.answered[name]
            store.engine.drop_snapshot_soon(name, lambda error: self.gone(error, name))
        elif name not in self.asked:
            self.asked[name] = self.synced
            store.engine.snapshot_soon(name, lambda answer: self.there(answer, name))

    def acknowledger(self, lsn: int) -> Callable[[object], None]:
        def acknowledged(error: object) -> None:
            assert error is None
            self.synced = max(self.synced, lsn)

        return acknowledged

    def there(self, answer: Snapshot | StorageError, name: str) -> None:
        assert isinstance(answer, Snapshot), answer
        self.answered[name] = answer.sequence
        self.made += 1

    def gone(self, error: StorageError | None, name: str) -> None:
        assert error is None
        del self.asked[name]
        self.dropped += 1

    def state_at(self, lsn: int) -> dict[bytes, bytes]:
        state: dict[bytes, bytes] = {}
        for key, value in self.log[:lsn]:
            if value is None:
                state.pop(key, None)
            else:
                state[key] = value
        return state

    def verify(self, fs: MemoryFileSystem, when: str) -> int:
        """Look at every snapshot, as it lies there and as the store knows it; answers how many there are."""
        before = {name: self.read(fs, name, when) for name in fs.list("snapshots") if not name.endswith(".part")}
        for name, sequence in self.answered.items():
            assert before.get(name) == sequence, f"{when}: snapshot {name} was answered and is gone, or another"
        assert before.keys() <= self.asked.keys(), f"{when}: a snapshot nobody asked for, or one that was dropped"
        store = Store(fs, TINY)
        found = {each.name: each.sequence for each in store.engine.snapshots() if not each.problem}
        assert found == before, f"{when}: the store knows of {found}"
        assert not [name for name in fs.list("snapshots") if name.endswith(".part")], f"{when}: not swept"
        recovered = store.engine.stats().last_sequence
        assert recovered >= self.synced, f"{when}: the store lost writes"
        assert contents(store) == self.state_at(recovered), when
        store.engine.check()
        return len(found)

    def read(self, fs: MemoryFileSystem, name: str, when: str) -> int:
        """Open the snapshot, on a disk of its own; answers its sequence."""
        copy = Store(fs.copy_below(snapshot_path(name)), replace(TINY, snapshot=True))
        sequence = copy.engine.stats().last_sequence
        asked = self.asked.get(name, 0)
        assert sequence >= asked, f"{when}: {name} holds {sequence} writes, {asked} were acknowledged before it"
        assert contents(copy) == self.state_at(sequence), f"{when}: {name} is not the state after {sequence} writes"
        copy.engine.check()
        return sequence


def contents(store: Store) -> dict[bytes, bytes]:
    return dict(store.page().items) if store.engine.trees() else {}


@pytest.mark.parametrize("seed", range(4))
def test_a_snapshot_under_its_name_is_whole_whenever_the_power_goes(seed: int) -> None:
    history = History(seed)
    fs = MemoryFileSystem()
    rng = Random(1000 + seed)
    calls: list[str] = []
    found = 0

    def cut(kind: str, path: str) -> None:
        nonlocal found
        calls.append(f"{kind} {path}")
        if len(calls) % 3 and not path.startswith("snapshots"):  # the store's own calls have their own test
            return
        when = f"seed {seed}, call {len(calls)}, after {calls[-1]}"
        found += history.verify(fs.power_cut(rng), when)
        history.verify(fs.power_cut(rng, keep=1.0), f"{when}, killed")
        history.verify(fs.power_cut(rng, keep=0.0), f"{when}, all lost that was not synced")

    fs.on_call = cut
    store = Store(fs, TINY)
    history.run(store, writes=80)
    fs.on_call = None
    assert not store.failures
    assert history.made >= 2
    assert history.dropped >= 1
    assert found >= 20, "snapshots were there to be looked at"
    assert store.engine.stats().flushes >= 3
    store.engine.check()
    history.verify(fs.power_cut(rng, keep=0.0), "at the end")
