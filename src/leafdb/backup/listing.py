"""The list of a backup: file `BACKUP`, which says what it is of and which files it has (docs/formats/backup.md).

It is written last, so a directory without it is no backup. Lines of JSON, for people and their tools: what it is of,
a line for each bucket, each node and each file, and the SHA-256 of all lines before it. There is one way to write a
list, and a list that is written otherwise is refused; so nothing in it can mean two things.

Whoever reads one may have been given it by a stranger: names are those of `is_store_file` in a directory of a listed
node, everything is bounded, and what is wrong is a CorruptionError that says where.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from leafdb.codec.fields import as_int, as_list, as_map, map_field
from leafdb.errors import CorruptionError, UnknownFormat
from leafdb.limits import BACKUP_FILES_MAX, BACKUP_LIST_BYTES_MAX, BUCKETS_MAX, NODE_ID_MAX, NODES_MAX, PARTITIONS_MAX
from leafdb.model.bucket import BucketProperties
from leafdb.ring.token import partition_bits
from leafdb.storage.store_files import is_store_file

LIST_PATH: Final = "BACKUP"
KIND: Final = "leafdb backup"
FORMAT_VERSION: Final = 1
TEXT_MAX: Final = 1_024
_HEX: Final = re.compile(r"[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class BackedNode:
    """A node of which there are two stores at rest: what it kept for others, and a moment later all that it had."""

    number: int
    name: str
    taken_ms: int
    """When its snapshot was asked for, by the clock of whoever asked: it has everything acknowledged there before."""

    @property
    def directory(self) -> str:
        """Where all of its store is, below the backup's root."""
        return f"node-{self.number}"

    @property
    def hints_directory(self) -> str:
        """Where the earlier store is, of hints alone."""
        return f"hints-{self.number}"

    @property
    def directories(self) -> tuple[str, str]:
        """Both."""
        return self.hints_directory, self.directory


@dataclass(frozen=True, slots=True)
class BackedFile:
    """One file, by its path below the backup's root."""

    path: str
    size: int
    sha256: str
    """64 hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a backup is."""

    name: str
    cluster: str
    cluster_id: str
    """32 hexadecimal digits."""
    epoch: int
    """Of the cluster's metadata when the backup was begun."""
    partitions: int
    begun_ms: int
    ended_ms: int
    buckets: tuple[BucketProperties, ...]
    nodes: tuple[BackedNode, ...]
    files: tuple[BackedFile, ...]
    missing: tuple[str, ...] = ()
    """Members whose stores are not in it, by name."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def bucket_named(self, name: str) -> BucketProperties | None:
        """The bucket of that name."""
        return next((bucket for bucket in self.buckets if bucket.name == name), None)

    def encode(self) -> bytes:
        """The bytes of the list."""
        head = {
            "kind": KIND,
            "version": FORMAT_VERSION,
            "name": self.name,
            "cluster": self.cluster,
            "cluster_id": self.cluster_id,
            "epoch": self.epoch,
            "partitions": self.partitions,
            "begun_ms": self.begun_ms,
            "ended_ms": self.ended_ms,
            "missing": list(self.missing),
        }
        lines: list[dict[str, Any]] = [head]
        lines += [{"bucket": bucket.to_wire()} for bucket in self.buckets]
        lines += [{"node": node.number, "name": node.name, "taken_ms": node.taken_ms} for node in self.nodes]
        lines += [{"file": file.path, "size": file.size, "sha256": file.sha256} for file in self.files]
        body = b"".join(map(_line, lines))
        return body + _line({"end": hashlib.sha256(body).hexdigest()})

    def check(self) -> None:
        """Nothing comes twice, all is in order, and files lie in directories of nodes."""
        paths = [file.path for file in self.files]
        assert paths == sorted(set(paths)), "files are not in order of their paths, or one comes twice"
        numbers = [node.number for node in self.nodes]
        assert numbers == sorted(set(numbers)), "nodes are not in order of their numbers, or one comes twice"
        assert len({bucket.name for bucket in self.buckets}) == len(self.buckets), "a bucket comes twice"
        assert len({bucket.id for bucket in self.buckets}) == len(self.buckets), "a bucket number comes twice"
        directories = {directory for node in self.nodes for directory in node.directories}
        for path in paths:
            directory, _, rest = path.partition("/")
            assert directory in directories, f"{path} is of no node in the list"
            assert is_store_file(rest), f"{path} is no file of a store"


def decode(data: bytes) -> Listing:
    """The list in the bytes of a `BACKUP`. Raises CorruptionError, UnknownFormat."""
    if len(data) > BACKUP_LIST_BYTES_MAX:
        raise CorruptionError(f"{LIST_PATH}: {len(data)} bytes are over {BACKUP_LIST_BYTES_MAX}", path=LIST_PATH)
    lines = data.split(b"\n")
    offset = 0
    found: list[Mapping[str, Any]] = []
    for number, line in enumerate(lines[:-1]):
        try:
            found.append(as_map(json.loads(line), "a line"))
            if number == 0:
                _check_head(found[0])
        except (ValueError, RecursionError) as error:
            text = f"{LIST_PATH}: line {number + 1} cannot be read: {error}"
            raise CorruptionError(text, path=LIST_PATH, offset=offset) from None
        offset += len(line) + 1
    if lines[-1] or len(found) < 2 or set(found[-1]) != {"end"}:
        raise CorruptionError(f"{LIST_PATH}: it has no end", path=LIST_PATH, offset=len(data))
    body = data[: len(data) - len(lines[-2]) - 1]
    if found[-1]["end"] != hashlib.sha256(body).hexdigest():
        raise CorruptionError(f"{LIST_PATH}: damaged", path=LIST_PATH, offset=0)
    try:
        listing = _listing(found[0], found[1:-1])
        listing.check()
    except (ValueError, AssertionError) as error:
        raise CorruptionError(f"{LIST_PATH}: {error}", path=LIST_PATH, offset=0) from None
    if listing.encode() != data:
        raise CorruptionError(f"{LIST_PATH}: not written as this format is", path=LIST_PATH, offset=0)
    return listing


def _check_head(head: Mapping[str, Any]) -> None:
    if head.get("kind") != KIND:
        raise ValueError("it is no list of a backup")
    if head.get("version") != FORMAT_VERSION:
        text = f"{LIST_PATH}: backup format {head.get('version')!r:.20}, this build knows {FORMAT_VERSION}"
        raise UnknownFormat(text, path=LIST_PATH)


def _listing(head: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> Listing:
    buckets = [line for line in lines if "bucket" in line]
    nodes = [line for line in lines if "node" in line]
    files = [line for line in lines if "file" in line]
    if len(buckets) > BUCKETS_MAX or len(nodes) > NODES_MAX or len(files) > BACKUP_FILES_MAX:
        raise ValueError(f"{len(buckets)} buckets, {len(nodes)} nodes, {len(files)} files")
    partitions = _int(head, "partitions", high=PARTITIONS_MAX)
    partition_bits(partitions)
    return Listing(
        name=_text(head, "name"),
        cluster=_text(head, "cluster"),
        cluster_id=_hex(head, "cluster_id", 32),
        epoch=_int(head, "epoch"),
        partitions=partitions,
        begun_ms=_int(head, "begun_ms"),
        ended_ms=_int(head, "ended_ms"),
        buckets=tuple(BucketProperties.from_wire(line["bucket"]) for line in buckets),
        nodes=tuple(
            BackedNode(_int(line, "node", low=1, high=NODE_ID_MAX), _text(line, "name"), _int(line, "taken_ms"))
            for line in nodes
        ),
        files=tuple(BackedFile(_text(line, "file"), _int(line, "size"), _hex(line, "sha256", 64)) for line in files),
        missing=tuple(
            _text({"missing": name}, "missing")
            for name in as_list(map_field(head, "missing"), "missing", items_max=NODES_MAX)
        ),
    )


def _int(fields: Mapping[str, Any], name: str, *, low: int = 0, high: int = (1 << 63) - 1) -> int:
    return as_int(map_field(fields, name), name, low=low, high=high)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = map_field(fields, name)
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_MAX or not value.isprintable():
        raise ValueError(f"{name} is no text of 1 to {TEXT_MAX} characters")
    return value


def _hex(fields: Mapping[str, Any], name: str, digits: int) -> str:
    value = _text(fields, name)
    if len(value) != digits or not _HEX.fullmatch(value):
        raise ValueError(f"{name} is not {digits} hexadecimal digits")
    return value


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=True, separators=(", ", ": ")).encode("ascii") + b"\n"
