"""`backup restore`: the records of a backup, merged, into a cluster of any shape.

The backup is read whole first: one that is damaged is refused before anything is written. Then bucket by bucket, in
order of tokens, what the old replicas would have made of each key goes to all who hold it in this cluster, with its
siblings, stamps, expiries and dots; a node answers when all of them have it on their disks. So going on after an
interruption, or doing it all again, changes nothing. What nobody would be shown (deleted, expired) is left out: in a
bucket that was made for it there is nothing that it would have to cover.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from leafdb.errors import ConnectFailed, DeadlineExceeded, NotApplied
from leafdb.limits import RESTORE_BYTES_MAX, RESTORE_KEYS_MAX
from leafdb_cli import exits
from leafdb_cli.backup import TIMEOUT_S, damage_text, problems_of
from leafdb_cli.checkpoint import Checkpoint, default_path
from leafdb_cli.exits import Quit
from leafdb_cli.progress import bar
from leafdb_cli.render import Column, human_bytes
from leafdb_cli.session import Session

if TYPE_CHECKING:
    from leafdb.backup.listing import Listing
    from leafdb.backup.merging import MergedRecord, Merger
    from leafdb.client.sync_client import Client
    from leafdb.model.bucket import BucketProperties

PATIENCE_S: Final = 30.0
PAUSE_S: Final = 0.25
SAVE_S: Final = 0.5
TOKEN_BYTES: Final = 8

COLUMNS: Final = [
    Column("bucket"), Column("into"), Column("restored", right=True), Column("siblings", right=True, spare=1),
    Column("dead", right=True, spare=2), Column("bytes", "size", human_bytes, right=True),
    Column("keys_per_s", right=True, spare=3),
]  # fmt: skip


@dataclass(slots=True)
class Report:
    """What became of the records of a bucket."""

    restored: int = 0
    siblings: int = 0
    """Of those, keys with more than one value."""
    dead: int = 0
    """Keys of which everything was deleted or has expired: they stay away."""
    size: int = 0

    def take(self, found: Living) -> None:
        """One more that goes into the cluster."""
        self.restored += 1
        self.siblings += found.values > 1
        self.size += len(found.record)


class Living(NamedTuple):
    """A record of which a reader would be shown something."""

    key: bytes
    record: bytes
    values: int
    """How many."""

    def size(self) -> int:
        return len(self.key) + len(self.record)


def restore_from(session: Session, path: Path, bucket: str, into: str) -> None:
    """The whole command."""
    from leafdb.backup.merging import Merger
    from leafdb.backup.verifying import open_stores, read_listing
    from leafdb.vfs.disk import DiskFileSystem

    fs = DiskFileSystem(path)
    listing = read_listing(fs)
    if problems := problems_of(session.output, path, listing):
        raise Quit(exits.FAILED, f"{damage_text(path, problems)}\nnothing was restored", "restore another backup")
    wanted = [each for each in listing.buckets if bucket in ("", each.name)]
    if bucket and not wanted:
        raise Quit(exits.NOT_FOUND, f"there is no bucket {bucket!r} in {path}", "leafdb backup list says what is in it")
    stores = open_stores(fs, listing)
    merger = Merger(stores.whole, stores.hints, listing.partitions)
    _tell(session, listing, merger)
    if session.options.dry_run:
        items = [_counted(merger, each, into or each.name) for each in wanted]
    else:
        with session.client(timeout_s=TIMEOUT_S) as client:
            _refuse_number(client.admin("backup.state"), listing, merger)
            targets = [_Target.found(session, client, path, each, into) for each in wanted]
            items = [_Restore(session, client, merger, target).run() for target in targets]
    session.output.items("RestoreList", items, COLUMNS, empty="there is no bucket in it")


def _tell(session: Session, listing: Listing, merger: Merger) -> None:
    if listing.missing:
        session.note(f"{', '.join(listing.missing)} is not in this backup: writes with fewer copies may be missing")
    if merger.unsure:
        session.note(
            f"no store can vouch for what was deleted long ago in {len(merger.unsure)} of {listing.partitions} "
            "partitions: some of it may return"
        )


def _refuse_number(state: Mapping[str, Any], listing: Listing, merger: Merger) -> None:
    """Another cluster that has the number of this one by chance, one of 65,535: its dots could be taken for ours."""
    if bytes(state["cluster_id"]).hex() != listing.cluster_id and state["cluster_number"] in merger.numbers:
        what = "this cluster has by chance the number of the one in the backup, and would take its writes for its own"
        raise Quit(exits.FAILED, what, "found it anew with empty directories, and restore then")


def _counted(merger: Merger, bucket: BucketProperties, into: str) -> dict[str, Any]:
    """What a restore would write."""
    report = Report()
    for found in _living(merger.records(bucket), report):
        report.take(found)
    return _item(bucket.name, into, report, 0.0)


def _living(records: Iterator[MergedRecord], report: Report) -> Iterator[Living]:
    """Those of which a reader would be shown anything; the others are counted."""
    from leafdb.backup.merging import living

    now_ms = time.time_ns() // 1_000_000
    for found in records:
        values = living(found.record, now_ms)
        if values:
            yield Living(found.key, found.record, values)
        else:
            report.dead += 1


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a bucket goes."""

    source: BucketProperties
    made: BucketProperties
    checkpoint: Checkpoint

    @classmethod
    def found(cls, session: Session, client: Client, path: Path, source: BucketProperties, into: str) -> _Target:
        """The bucket to write to, made if it is not there. Quit for one that would be mixed with something else."""
        name = into or source.name
        there = _bucket(client, name)
        fresh = there is None
        if there is None:
            args = {"properties": {**source.to_wire(), "name": name}}
            there = _properties(client.admin("bucket.create", args, changes=True, timeout=TIMEOUT_S))
            session.note(f"made bucket {name}")
        if there.conflict is not source.conflict:
            want, has = source.conflict.name.lower(), there.conflict.name.lower()
            raise Quit(
                exits.CONFLICT, f"bucket {name} has the policy {has}, the backup has {want}", "--into another one"
            )
        job = {"restore": str(path.absolute()), "bucket": source.name, "into": f"{name} {there.generation}"}
        checkpoint = Checkpoint(default_path(path, f"restore-{name}"), job)
        if checkpoint.load():
            session.note(f"going on with {name} after {checkpoint.count} keys, as {checkpoint.path} says")
        elif not fresh and not into and _holds_keys(client, there):
            raise Quit(
                exits.CONFLICT,
                f"bucket {name} is there and holds keys",
                f"--bucket {source.name} --into another name, or --into {name} to merge the backup into it",
            )
        return cls(source, there, checkpoint)


class _Restore:
    """One bucket."""

    def __init__(self, session: Session, client: Client, merger: Merger, target: _Target) -> None:
        self._session = session
        self._client = client
        self._merger = merger
        self._target = target
        self._report = Report()
        self._already = target.checkpoint.count
        self._saved_at = time.monotonic()

    def run(self) -> dict[str, Any]:
        """To the end of the bucket; its item."""
        from leafdb.codec.batches import batches

        source, made, checkpoint = self._target.source, self._target.made, self._target.checkpoint
        started = time.monotonic()
        start = bytes.fromhex(checkpoint.position) if checkpoint.position else b""
        with bar(self._session.output, f"restore of {source.name}", 1.0) as progress:
            living = _living(self._merger.records(source, start), self._report)
            for batch in batches(living, Living.size, count_max=RESTORE_KEYS_MAX, bytes_max=RESTORE_BYTES_MAX):
                self._give(batch)
                for found in batch:
                    self._report.take(found)
                key = batch[-1].key
                self._save(key + b"\0")
                share = int.from_bytes(key[:TOKEN_BYTES], "big") / (1 << 64)
                progress.move(share, f"{self._already + self._report.restored} keys")
            progress.move(1.0, f"{self._already + self._report.restored} keys")
        checkpoint.remove()
        return _item(source.name, made.name, self._report, time.monotonic() - started)

    def _save(self, position: bytes) -> None:
        """Where to go on: everything before it is on the disks of all who hold it."""
        if time.monotonic() - self._saved_at >= SAVE_S or not self._target.checkpoint.position:
            self._target.checkpoint.save(position.hex(), self._already + self._report.restored)
            self._saved_at = time.monotonic()

    def _give(self, batch: list[Living]) -> None:
        """Return when all holders have these. Quit when they do not for longer than PATIENCE_S."""
        made = self._target.made
        args = {
            "bucket": made.name,
            "generation": made.generation,
            "keys": [found.key[TOKEN_BYTES:] for found in batch],
            "records": [found.record for found in batch],
        }
        deadline = time.monotonic() + PATIENCE_S
        while problem := self._problem(args):
            if time.monotonic() >= deadline:
                raise Quit(exits.UNAVAILABLE, problem, "the same command goes on from here")
            time.sleep(PAUSE_S)

    def _problem(self, args: Mapping[str, Any]) -> str:
        """What passes that keeps holders from taking these; empty when all have. Raises what does not pass."""
        try:
            errors = self._client.admin("backup.restore", args)["errors"]
        except (NotApplied, DeadlineExceeded, ConnectFailed) as error:
            if not error.retryable:
                raise
            return exits.explanation(error)
        return "; ".join(f"{name} has not taken the records: {why}" for name, why in errors.items())


def _item(bucket: str, into: str, report: Report, seconds: float) -> dict[str, Any]:
    return {
        "bucket": bucket,
        "into": into,
        "restored": report.restored,
        "siblings": report.siblings,
        "dead": report.dead,
        "bytes": report.size,
        "seconds": round(seconds, 3),
        "keys_per_s": round(report.restored / seconds, 1) if seconds else 0.0,
    }


def _bucket(client: Client, name: str) -> BucketProperties | None:
    try:
        return _properties(client.admin("bucket.get", {"name": name}))
    except NotApplied as error:
        if exits.exit_code(error) == exits.NOT_FOUND:
            return None
        raise


def _properties(wire: Mapping[str, Any]) -> BucketProperties:
    from leafdb.model.bucket import BucketProperties

    return BucketProperties.from_wire(wire)


def _holds_keys(client: Client, bucket: BucketProperties) -> bool:
    from leafdb.types import Conflict

    handle: Any = client.lww_bucket if bucket.conflict is Conflict.LWW else client.bucket
    return any(True for _ in handle(bucket.name).scan(limit=1))
