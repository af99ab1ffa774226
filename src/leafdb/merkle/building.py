"""A tree that is built by reading a range page by page, while the range is written to.

A page shows its part of the range as of the moment it was asked for. So of a write

- behind the pages that have come the tree is told at once: no later page shows it;
- in front of the page that was asked for nothing need be kept: a later page shows it;
- into the page that is on its way it is remembered until the page has come and says where it ends: the page shows what
  was there before that write.

What comes out is the tree of the range as it is now, whatever the order of writes and pages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from leafdb.merkle.tree import Tree

MEANWHILE_MAX: Final = 4_096
"""Writes remembered while one page is on its way; a page that takes longer is read again."""


class Building:
    """One tree under construction. `changed` is told every write to the range, in order."""

    __slots__ = ("_meanwhile", "_passed", "_reading", "_too_many", "tree")

    def __init__(self) -> None:
        self.tree: Tree = Tree()
        self._passed = b""
        """Of the keys before it the tree has everything."""
        self._reading = False
        self._too_many = False
        self._meanwhile: list[tuple[bytes, int, int, int]] = []

    def changed(self, key: bytes, leaf: int, delta: int, keys: int) -> None:
        """A key was written: `leaf`, `delta` and `keys` as for `Tree.change`."""
        if key < self._passed:
            self.tree.change(leaf, delta, keys)
        elif self._reading:
            if len(self._meanwhile) < MEANWHILE_MAX:
                self._meanwhile.append((key, leaf, delta, keys))
            else:
                self._too_many = True

    def page_asked(self) -> None:
        """The next page is asked for, in this very call; it shows the range as it is now."""
        self._reading, self._too_many = True, False
        self._meanwhile.clear()

    def page_came(self, items: Iterable[tuple[bytes, bytes]], end: bytes | None) -> bool:
        """The page: keys and records up to `end` (None: of all the rest). False: it is to be asked for once more."""
        assert self._reading
        self._reading = False
        if self._too_many:
            return False
        tree = self.tree
        for key, record in items:
            tree.add(key, record)
        for key, leaf, delta, keys in self._meanwhile:
            if end is None or key < end:
                tree.change(leaf, delta, keys)
        self._meanwhile.clear()
        if end is not None:
            assert end > self._passed, "a page that advances by nothing"
            self._passed = end
        return True
