"""What a store must hold, told beside it: every write in order, what was acknowledged, the lives of its trees.

A crash takes a suffix of the writes: the store says how far it came (R), and the model goes back to exactly that state.
R must reach what was acknowledged: after a kill everything written, after a power cut everything synced.

Trees are made and dropped by the manifest, not by the log, so their order against the writes is loose: a tree that was
made, and not yet durably, may be there after a crash or not; one that was dropped, and not yet durably, likewise. The
lives of one number are passed through in order, so what a crash leaves is one point of that order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from leafdb.testing.violation import Invariant, require
from leafdb.types import Durability, TreeId

Contents = dict[bytes, bytes]


@dataclass(slots=True, eq=False)
class Life:
    """A tree from its creation to its drop."""

    tree_id: TreeId
    created: bool = False
    """The store said that its creation is durable."""
    dropped: bool = False
    gone: bool = False
    """The store said that its drop is durable."""
    first_lsn: int = 0
    """Of the first write to it; 0: there was none."""
    items: Contents = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a write, with what was there before it."""

    life: Life
    key: bytes
    value: bytes | None
    before: bytes | None


class StoreModel:
    """See the module."""

    def __init__(self) -> None:
        self.log: list[tuple[Change, ...]] = []
        """Index 0 is sequence number 1."""
        self.written: int = 0
        """Acknowledged as written: a kill must not take it."""
        self.synced: int = 0
        """Acknowledged as synced: nothing must take it."""
        self.lives: dict[TreeId, list[Life]] = {}
        """By number, oldest first; what certainly is no more is left out."""

    @property
    def last_lsn(self) -> int:
        return len(self.log)

    def trees(self) -> dict[TreeId, Life]:
        """The trees that can be used now, by number."""
        return {tree_id: self.lives[tree_id][-1] for tree_id in sorted(self.lives) if self.usable(tree_id)}

    def usable(self, tree_id: TreeId) -> bool:
        lives = self.lives.get(tree_id)
        return bool(lives) and not lives[-1].dropped  # type: ignore[index]  # not empty, as just seen

    @classmethod
    def of(cls, lsn: int, found: Mapping[TreeId, Contents]) -> StoreModel:
        """That of a store which has so many writes, all of them durable, and holds `found`."""
        model = cls()
        model.log = [()] * lsn
        model.written = model.synced = lsn
        for tree_id, items in found.items():
            life = model.create(tree_id)
            life.created = True
            life.items = dict(items)
        return model

    # -- what is done

    def create(self, tree_id: TreeId) -> Life:
        life = Life(tree_id)
        self.lives.setdefault(tree_id, []).append(life)
        return life

    def drop(self, tree_id: TreeId) -> Life:
        life = self.lives[tree_id][-1]
        life.dropped = True
        return life

    def write(self, entries: list[tuple[TreeId, bytes, bytes | None]]) -> int:
        """Apply one write; its sequence number."""
        changes = []
        for tree_id, key, value in entries:
            life = self.lives[tree_id][-1]
            changes.append(Change(life, key, value, life.items.get(key)))
            _put(life.items, key, value)
            life.first_lsn = life.first_lsn or len(self.log) + 1
        self.log.append(tuple(changes))
        return len(self.log)

    def unwrite(self) -> None:
        """The last write was refused, or is lost."""
        for change in reversed(self.log.pop()):
            life = change.life
            _put(life.items, change.key, change.before)
            if life.first_lsn > len(self.log):
                life.first_lsn = 0

    def acknowledged(self, lsn: int, durability: Durability) -> None:
        self.written = max(self.written, lsn)
        if durability is Durability.ALWAYS:
            self.synced = max(self.synced, lsn)

    def all_durable(self) -> None:
        """The store was closed in order."""
        self.acknowledged(self.last_lsn, Durability.ALWAYS)
        for lives in self.lives.values():
            for life in lives:
                life.created = True
                life.gone = life.dropped

    # -- what a crash leaves

    def rewind(self, lsn: int) -> None:
        """Only the first `lsn` writes have happened; they are durable."""
        while len(self.log) > lsn:
            self.unwrite()
        self.written = self.synced = lsn

    def contents_at(self, lsn: int, life: Life) -> Contents:
        """What `life` held after the first `lsn` writes; the model stays as it is."""
        items = dict(life.items)
        for changes in reversed(self.log[lsn:]):
            for change in reversed(changes):
                if change.life is life:
                    _put(items, change.key, change.before)
        return items

    def find_lives(self, found: Mapping[TreeId, Contents], when: str) -> None:
        """After `rewind`: `found` is all the store holds. Violation unless that can be; the lives are then known."""
        lives = self.judge(found, len(self.log), when)
        for life in lives.values():
            life.created, life.dropped = True, False
        self.lives = {tree_id: [life] for tree_id, life in lives.items()}

    def judge(self, found: Mapping[TreeId, Contents], lsn: int, when: str) -> dict[TreeId, Life]:
        """`found` is all a store holds that has the first `lsn` writes. Violation unless that can be; answers the lives
        these trees are in. The model stays as it is."""
        unknown = sorted(found.keys() - self.lives.keys())
        require(not unknown, Invariant.NO_PHANTOMS, f"{when}: trees {unknown} that nobody made, or that were dropped")
        lives = {tree_id: self._life_of(tree_id, found.get(tree_id), lsn, when) for tree_id in sorted(self.lives)}
        return {tree_id: life for tree_id, life in lives.items() if life is not None}

    def _life_of(self, tree_id: TreeId, contents: Contents | None, lsn: int, when: str) -> Life | None:
        """Positions in the order of lives: 2i is before life i, 2i + 1 is in it."""
        lives = self.lives[tree_id]
        low, high = 0, 2 * len(lives) - (0 if lives[-1].dropped else 1)
        for index, life in enumerate(lives):
            if life.created or 0 < life.first_lsn <= lsn:
                low = 2 * index + 1
            if life.gone:
                low = 2 * index + 2
        possible = [place for place in range(low, high + 1) if place % 2 == (contents is not None)]
        if contents is None:
            require(possible, Invariant.PREFIX_DURABLE, f"{when}: tree {tree_id} is gone")
            return None
        require(possible, Invariant.NO_PHANTOMS, f"{when}: tree {tree_id} is there, and should not be")
        fitting = [lives[place // 2] for place in possible if self.contents_at(lsn, lives[place // 2]) == contents]
        if not fitting:
            key, message = difference(self.contents_at(lsn, lives[possible[-1] // 2]), contents)
            require(False, Invariant.PREFIX_DURABLE, f"{when}: tree {tree_id}, {message}", key)
        return fitting[-1]


def _put(items: Contents, key: bytes, value: bytes | None) -> None:
    if value is None:
        items.pop(key, None)
    else:
        items[key] = value


def difference(expected: Mapping[bytes, bytes], found: Mapping[bytes, bytes]) -> tuple[str, str]:
    """The first key on which the two differ, and what each has there, in words."""
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            name = key.decode("ascii", "replace")
            return name, f"{name}: {short(found.get(key))} where {short(expected.get(key))} was written"
    return "", "no difference"


def short(value: bytes | None) -> str:
    """A value as its number, which is how every value of the program begins."""
    return "nothing" if value is None else repr(value[:12].partition(b".")[0])
