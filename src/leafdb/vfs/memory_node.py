"""Files and directories in memory, each in two states: as the process sees it, and as the platter has it.

The difference is a list of changes since the last sync. `after_cut` builds a new object from the platter's state and a
random selection of the changes; `MemoryFileSystem` composes these into a file system.
"""

from __future__ import annotations

from random import Random

SECTOR_BYTES = 512

Write = tuple[int, bytes]
"""Offset and data; an offset of -1 stands for a truncation, whose size is the length's big-endian bytes."""

_TRUNCATE = -1


class MemoryNode:
    """The content of one file."""

    __slots__ = ("_doomed", "_durable", "_pending", "content", "directory")

    def __init__(self, durable: bytes = b"") -> None:
        self.directory: Directory | None = None
        """What this name stands for, if it is no file."""
        self.content: bytearray = bytearray(durable)
        self._durable = bytearray(durable)
        self._pending: list[Write] = []
        # writes whose sync failed: they may have reached the platter, and no later sync makes it certain
        self._doomed: list[Write] = []

    def write(self, offset: int, data: bytes) -> None:
        if data:
            _put(self.content, offset, data)
            self._pending.append((offset, data))

    def write_astray(self, offset: int, data: bytes, landed: int | None) -> None:
        """A write that reads show, and that the platter gets at `landed`, or nowhere; the file's size is right."""
        _put(self.content, offset, data)
        if landed is not None:
            self._pending.append((landed, data))
        self._pending.append((_TRUNCATE, len(self.content).to_bytes(8, "big")))

    def evict(self) -> None:
        """Forget what only the cache knows."""
        content = bytearray(self._durable)
        for change in self._pending:
            _apply(content, change)
        content.extend(bytes(max(0, len(self.content) - len(content))))
        self.content = content

    @property
    def durable_bytes(self) -> int:
        """How many bytes the platter has of both views."""
        return min(len(self._durable), len(self.content))

    def truncate(self, size: int) -> None:
        change = (_TRUNCATE, size.to_bytes(8, "big"))
        _apply(self.content, change)
        self._pending.append(change)

    def sync(self) -> None:
        for change in self._pending:
            _apply(self._durable, change)
        self._pending.clear()

    def sync_failed(self) -> None:
        self._doomed += self._pending
        self._pending.clear()

    def flip(self, offset: int, mask: int) -> None:
        self.content[offset] ^= mask
        if offset < len(self._durable):
            self._durable[offset] ^= mask

    def after_cut(self, rng: Random, chance: float) -> MemoryNode:
        """What the platter holds after the power went."""
        survivor = bytearray(self._durable)
        for change in self._doomed + self._pending:
            offset, data = change
            if offset == _TRUNCATE:
                if rng.random() < chance:
                    _apply(survivor, change)
                continue
            fate = rng.random()
            if fate < chance * 0.7 or chance >= 1.0:
                _put(survivor, offset, data)
            elif fate < chance:
                _tear(survivor, offset, data, rng)
        return MemoryNode(bytes(survivor))


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _apply(content: bytearray, change: Write) -> None:
    offset, data = change
    if offset != _TRUNCATE:
        _put(content, offset, data)
        return
    size = int.from_bytes(data, "big")
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


def _tear(content: bytearray, offset: int, data: bytes, rng: Random) -> None:
    """Part of a write: a prefix, cut at any byte, or some of its sectors, the file's size having grown or not."""
    if rng.random() < 0.5:
        _put(content, offset, data[: rng.randrange(len(data))])
        return
    if rng.random() < 0.5:
        _put(content, offset + len(data) - 1, data[-1:])  # the size is there, and zeros where nothing else comes
    for start in range(0, len(data), SECTOR_BYTES):
        if rng.random() < 0.5:
            _put(content, offset + start, data[start : start + SECTOR_BYTES])


class Directory:
    """Names of one directory. `node` is what its own name in its parent refers to."""

    __slots__ = ("_durable", "_pending", "names", "node")

    def __init__(self, node: MemoryNode) -> None:
        self.node: MemoryNode = node
        node.directory = self
        self.names: dict[str, MemoryNode] = {}
        self._durable: dict[str, MemoryNode] = {}
        self._pending: list[tuple[str, str, MemoryNode | None]] = []

    def change(self, name: str, node: MemoryNode | None) -> None:
        """Let `name` refer to `node`; None removes it."""
        self._change("", name, node)

    def rename(self, source: str, target: str, node: MemoryNode) -> None:
        self._change(source, target, node)

    def _change(self, source: str, target: str, node: MemoryNode | None) -> None:
        change = (source, target, node)
        _rename(self.names, change)
        self._pending.append(change)

    def sync(self) -> None:
        for change in self._pending:
            _rename(self._durable, change)
        self._pending.clear()

    def after_cut(
        self, rng: Random, chance: float, nodes: dict[int, MemoryNode]
    ) -> tuple[Directory, dict[str, Directory]]:
        """What the platter holds, and the directories, as they are now, whose names in this one are left.

        `nodes` keeps the fate of each file one, whichever of its names survive.
        """
        names = dict(self._durable)
        for change in self._pending:
            if rng.random() < chance:
                _rename(names, change)
        clone = Directory(MemoryNode())
        for name, node in names.items():
            if id(node) not in nodes:
                nodes[id(node)] = node.after_cut(rng, chance)
            clone.names[name] = nodes[id(node)]
        clone._durable = dict(clone.names)
        return clone, {name: node.directory for name, node in names.items() if node.directory is not None}


def _rename(names: dict[str, MemoryNode], change: tuple[str, str, MemoryNode | None]) -> None:
    source, target, node = change
    if source:
        names.pop(source, None)
    if node is None:
        names.pop(target, None)
    else:
        names[target] = node
