"""The stamp of a data directory (IDENTITY), the mark of a clean shutdown (CLEAN), the mark of a store that is being
emptied (WIPE). Drawn in docs/formats/identity.md.

The stamp says whose directory this is and how often it was opened. It is written whole, under another name, and then
renamed; so it is never torn, and damage in it is damage. `boot` rises by one at each open, durably, before anything is
served: a peer that remembers a higher one looks at a disk that was rolled back.

The mark says where the log ended when the store was closed. It is there only between a close and the next open's first
write; a store that finds it has forgotten nothing.

The third mark is there while `wipe` is under way.

A snapshot has a stamp as well: its store's, with the snapshot's name. Format version 2 says so, which builds that know
no snapshots refuse: a snapshot, or a copy of one, must never be taken for the store it was made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

from leafdb.codec import cbor
from leafdb.codec.checksum import crc32c
from leafdb.errors import CorruptionError, UnknownFormat
from leafdb.vfs.base import FileSystem, read_file, replace_file

IDENTITY_PATH: Final = "IDENTITY"
CLEAN_PATH: Final = "CLEAN"
WIPE_PATH: Final = "WIPE"
LOCK_PATH: Final = "LOCK"
FORMAT_VERSION: Final = 1
SNAPSHOT_VERSION: Final = 2
"""Of a snapshot's IDENTITY; everything else is of the first version."""
STORE_ID_BYTES: Final = 16

_HEAD: Final = Struct(">8sHHI")
"""Magic, format version, zero, length of the CBOR map that follows; a crc32c of all of it ends the file."""
_IDENTITY_MAGIC: Final = b"leafid\0\n"
_CLEAN_MAGIC: Final = b"leafcln\n"
_WIPE_MAGIC: Final = b"leafwip\n"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this store is. Cluster and node are empty until the node has joined."""

    store_id: bytes
    boot: int = 0
    cluster_id: bytes = b""
    node_id: int = 0
    incarnation: int = 0
    snapshot: str = ""
    """The name of the snapshot that lies here; empty: this is a store that may be lived in."""
    taken_ms: int = 0
    """When the snapshot was asked for, by its node's wall clock; 0: not known."""

    def to_plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = {
            "store": self.store_id,
            "boot": self.boot,
            "cluster": self.cluster_id,
            "node": self.node_id,
            "incarnation": self.incarnation,
        }
        if self.snapshot:
            plain |= {"snapshot": self.snapshot, "taken_ms": self.taken_ms}
        return plain


@dataclass(frozen=True, slots=True)
class CleanMark:
    """Where the log ended: last segment, its size, the last sequence number; and which open of the store it closed."""

    segment: int
    size: int
    last_lsn: int
    boot: int

    def to_plain(self) -> dict[str, Any]:
        return {"segment": self.segment, "size": self.size, "last": self.last_lsn, "boot": self.boot}


def write_identity(fs: FileSystem, identity: Identity) -> None:
    version = SNAPSHOT_VERSION if identity.snapshot else FORMAT_VERSION
    replace_file(fs, IDENTITY_PATH, _seal(_IDENTITY_MAGIC, identity.to_plain(), version))


def read_identity(fs: FileSystem) -> Identity | None:
    """The stamp; None when the directory has none."""
    if not fs.exists(IDENTITY_PATH):
        return None
    plain = _open(fs, IDENTITY_PATH, _IDENTITY_MAGIC, SNAPSHOT_VERSION)
    of_snapshot = "snapshot" in plain
    return Identity(
        store_id=_bytes(plain, "store", IDENTITY_PATH),
        boot=_number(plain, "boot", IDENTITY_PATH),
        cluster_id=_bytes(plain, "cluster", IDENTITY_PATH),
        node_id=_number(plain, "node", IDENTITY_PATH),
        incarnation=_number(plain, "incarnation", IDENTITY_PATH),
        snapshot=_name(plain, "snapshot", IDENTITY_PATH) if of_snapshot else "",
        taken_ms=_number(plain, "taken_ms", IDENTITY_PATH) if of_snapshot else 0,
    )


def write_clean_mark(fs: FileSystem, mark: CleanMark) -> None:
    replace_file(fs, CLEAN_PATH, _seal(_CLEAN_MAGIC, mark.to_plain()))


def read_clean_mark(fs: FileSystem) -> CleanMark | None:
    """The mark; None when the last shutdown was not clean."""
    if not fs.exists(CLEAN_PATH):
        return None
    plain = _open(fs, CLEAN_PATH, _CLEAN_MAGIC)
    return CleanMark(*(_number(plain, name, CLEAN_PATH) for name in ("segment", "size", "last", "boot")))


def remove_clean_mark(fs: FileSystem) -> None:
    """Durably, before the first write."""
    if fs.exists(CLEAN_PATH):
        fs.unlink(CLEAN_PATH)
        fs.sync_dir("")


def write_wipe_mark(fs: FileSystem, fresh_id: bytes) -> None:
    """Say that the store is on its way out, and which one follows it."""
    replace_file(fs, WIPE_PATH, _seal(_WIPE_MAGIC, {"next": fresh_id}))


def read_wipe_mark(fs: FileSystem) -> bytes | None:
    """The identity of the store to come; None when nothing is being emptied."""
    if not fs.exists(WIPE_PATH):
        return None
    return _bytes(_open(fs, WIPE_PATH, _WIPE_MAGIC), "next", WIPE_PATH)


def remove_wipe_mark(fs: FileSystem) -> None:
    """Durably."""
    fs.unlink(WIPE_PATH)
    fs.sync_dir("")


def _seal(magic: bytes, plain: dict[str, Any], version: int = FORMAT_VERSION) -> bytes:
    body = cbor.dumps(plain)
    content = _HEAD.pack(magic, version, 0, len(body)) + body
    return content + crc32c(content).to_bytes(4, "big")


def _open(fs: FileSystem, path: str, magic: bytes, newest: int = FORMAT_VERSION) -> dict[str, Any]:
    data = read_file(fs, path)
    content, checksum = data[:-4], data[-4:]
    if len(content) < _HEAD.size or int.from_bytes(checksum, "big") != crc32c(content):
        raise CorruptionError(f"{path}: damaged", path=path, offset=0)
    found, version, _, length = _HEAD.unpack_from(content)
    if found != magic:
        raise CorruptionError(f"{path}: not a file of this kind", path=path, offset=0)
    if not FORMAT_VERSION <= version <= newest:
        raise UnknownFormat(f"{path}: format {version}, this build knows {newest}", path=path)
    try:
        plain = cbor.loads(content[_HEAD.size :])
    except ValueError as error:
        raise CorruptionError(f"{path}: {error}", path=path, offset=_HEAD.size) from error
    if not isinstance(plain, dict) or length != len(content) - _HEAD.size:
        raise CorruptionError(f"{path}: malformed", path=path, offset=_HEAD.size)
    return plain


def _number(plain: dict[str, Any], name: str, path: str) -> int:
    value = plain.get(name)
    if type(value) is not int or value < 0:
        raise CorruptionError(f"{path}: {name!r} is {value!r:.40}", path=path, offset=_HEAD.size)
    return value


def _name(plain: dict[str, Any], name: str, path: str) -> str:
    value = plain.get(name)
    if type(value) is not str or not value:
        raise CorruptionError(f"{path}: {name!r} is {value!r:.40}", path=path, offset=_HEAD.size)
    return value


def _bytes(plain: dict[str, Any], name: str, path: str) -> bytes:
    value = plain.get(name)
    if type(value) is not bytes:
        raise CorruptionError(f"{path}: {name!r} is {value!r:.40}", path=path, offset=_HEAD.size)
    return value
