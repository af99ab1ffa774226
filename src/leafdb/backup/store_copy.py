"""The store of one node in a backup: a store at rest, read in order of keys and never opened as a running one.

Nothing is written, no log is replayed (a snapshot has none), and tables are open only while they are read, so that the
memory and the descriptors it takes do not grow with the store. Whatever is wrong with its bytes is a CorruptionError
or UnknownFormat that names the file.

The trees of a node's own are known here by their numbers: they are persisted, and never change meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from leafdb.codec.varint import decode_varint
from leafdb.errors import CorruptionError, UnknownFormat
from leafdb.hints.hint import decode as decode_hint
from leafdb.hints.hint import decode_key, prefix
from leafdb.limits import NODE_ID_MAX
from leafdb.model.hlc import STAMP_MAX
from leafdb.ring.metadata import ClusterMetadata, MetadataError
from leafdb.ring.metadata import decode as decode_metadata
from leafdb.storage.block import Entry
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.identity import IDENTITY_PATH, Identity, read_identity
from leafdb.storage.manifest import CURRENT_PATH, current_manifest, manifest_name, read_manifest
from leafdb.storage.merge_iterator import merge
from leafdb.storage.sstable_reader import TableReader
from leafdb.storage.value_files import Place
from leafdb.storage.value_reader import OpenFiles, ValueReader
from leafdb.storage.version import TableMeta, Version
from leafdb.types import BucketId, NodeId, TreeId
from leafdb.vfs.base import FileSystem

META_TREE: Final = TreeId(1)
METADATA_KEY: Final = b"metadata"
HINTS_TREE: Final = TreeId(3)
PURGE_TREE: Final = TreeId(6)
MARK: Final = 1

Record = tuple[bytes, bytes]
"""A storage key and the record under it."""


class StoreCopy:
    """See the top of this file."""

    def __init__(self, fs: FileSystem, directory: str, identity: Identity, version: Version, manifest: int) -> None:
        """Use `open`."""
        self.directory = directory
        self.identity = identity
        self.version = version
        self._fs = fs
        self._manifest = manifest
        self._open_files = OpenFiles(32)  # of each store: there may be many
        self._values: dict[int, ValueReader] = {}

    @classmethod
    def open(cls, fs: FileSystem, directory: str) -> StoreCopy:
        """Believe the stamp and the manifest of the store at the root of `fs`, which is the backup's `directory`. Here
        and later raises CorruptionError or UnknownFormat, whose path is below the backup's root."""
        with _naming(directory):
            identity = read_identity(fs)
            if identity is None:
                raise CorruptionError(f"{IDENTITY_PATH} is missing", path=IDENTITY_PATH)
            number = current_manifest(fs)
            if number is None:
                raise CorruptionError(f"{CURRENT_PATH} is missing", path=CURRENT_PATH)
            return cls(fs, directory, identity, read_manifest(fs, number), number)

    def files(self) -> set[str]:
        """What the store is made of, by path: what a copy of it must have, and may have nothing else."""
        return {IDENTITY_PATH, CURRENT_PATH, manifest_name(self._manifest), *self.version.files()}

    def tables(self) -> list[TableMeta]:
        """Every table, in order of file numbers."""
        return [self.version.tables[number] for number in sorted(self.version.tables)]

    # -- entries

    def entries(self, tree: TreeId, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """What a tree holds from `start` on and before `stop`, in order of keys; nothing when there is no such tree."""
        found = self.version.trees.get(tree)
        if found is None:
            return
        sources = [self._run([meta], start, stop) for meta in found.levels[0]]
        sources += [self._run(level, start, stop) for level in found.levels[1:] if level]
        for key, _, value in merge(sources):
            if isinstance(value, Place):
                yield key, self._value_at(value, key)
            elif value is not None:
                yield key, value

    def value(self, tree: TreeId, key: bytes) -> bytes | None:
        """What a tree holds under a key."""
        return next((value for _, value in self.entries(tree, key, key + b"\0")), None)

    def _value_at(self, place: Place, key: bytes) -> bytes:
        """A large value, from its value file; that stays open, with so many others."""
        with _naming(self.directory):
            reader = self._values.get(place.file_number)
            if reader is None:
                reader = ValueReader(self._fs, self.version.values.metas[place.file_number], self._open_files)
                self._values[place.file_number] = reader
            return reader.get(place, key)

    def _run(
        self, tables: tuple[TableMeta, ...] | list[TableMeta], start: bytes, stop: bytes | None
    ) -> Iterator[Entry]:
        """The entries of disjoint tables in order of keys, one of them open at a time."""
        for meta in tables:
            if meta.largest < start or (stop is not None and meta.smallest >= stop):
                continue
            with _naming(self.directory):
                reader = TableReader.open(self._fs, meta, BlockCache(0))
                try:
                    yield from reader.iterate(start, stop)
                finally:
                    reader.close()

    # -- what they mean

    def metadata(self) -> ClusterMetadata | None:
        """What this node knew of its cluster."""
        found = self.value(META_TREE, METADATA_KEY)
        if found is None:
            return None
        try:
            return decode_metadata(found)
        except MetadataError as error:
            raise CorruptionError(f"what the store knows of its cluster: {error}", path=self.directory) from None

    def marks(self) -> dict[int, int]:
        """Of each partition the stamp below which this store has had everything (docs/formats/purge.md).

        None of a store that had lost something with a damaged table: the snapshot may be of the moment between that and
        the marks' going (decision 0009, section 4).
        """
        if self.version.lost:
            return {}
        marks: dict[int, int] = {}
        for key, value in self.entries(PURGE_TREE, bytes((MARK,)), bytes((MARK + 1,))):
            try:
                stamp, end = decode_varint(value, 0)
                if len(key) != 3 or end != len(value) or not 0 < stamp <= STAMP_MAX:
                    raise ValueError("malformed")
            except ValueError as error:
                raise CorruptionError(f"what the store vouches for: {error}", path=self.directory) from None
            marks[int.from_bytes(key[1:], "big")] = stamp
        return marks

    def targets(self) -> list[NodeId]:
        """For whom it keeps hints."""
        found: list[NodeId] = []
        start = b""
        while True:
            key = next((key for key, _ in self.entries(HINTS_TREE, start)), None)
            if key is None:
                return found
            try:
                found.append(decode_key(key).target)
            except ValueError as error:
                raise CorruptionError(f"a hint cannot be read: {error}", path=self.directory) from None
            if found[-1] == NODE_ID_MAX:
                return found
            start = prefix(NodeId(found[-1] + 1), BucketId(0))

    def hints(self, target: NodeId, bucket: BucketId, start: bytes = b"") -> Iterator[Record]:
        """The records of a bucket that it keeps for `target`, in order of storage keys, from `start` on."""
        first = prefix(target, bucket)
        for key, value in self.entries(HINTS_TREE, first + start, _after(first)):
            try:
                yield decode_key(key).storage_key, decode_hint(value).record
            except ValueError as error:
                raise CorruptionError(f"a hint cannot be read: {error}", path=self.directory) from None


@contextmanager
def _naming(directory: str) -> Iterator[None]:
    """What is wrong below a directory is told with its path below the backup's root."""
    try:
        yield
    except CorruptionError as error:
        path = f"{directory}/{error.path}"
        raise CorruptionError(f"{directory}: {error.message}", path=path, offset=error.offset) from None
    except UnknownFormat as error:
        raise UnknownFormat(f"{directory}: {error.message}", path=f"{directory}/{error.path}") from None
    except OSError as error:
        raise CorruptionError(f"{directory} cannot be read: {error}", path=directory) from None


def _after(first: bytes) -> bytes | None:
    """The end of all keys with a prefix; None when nothing lies behind them."""
    following = int.from_bytes(first, "big") + 1
    return None if following >> (8 * len(first)) else following.to_bytes(len(first), "big")
