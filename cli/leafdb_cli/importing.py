"""`kv import`: a data set into a bucket, in batches of many requests in flight, surviving nodes that come and go.

Each batch reads its keys first and writes with what it read as context, so that importing twice, or going on after an
interruption, replaces values and never leaves siblings. A write whose outcome is unknown is tried again in the same
way: read, and written only where the value is not there yet. If the first try surfaces later after all, the key has two
siblings with one value; such keys are named in the report (`Report.retried`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from leafdb.errors import LeafdbError, NotApplied, OutcomeUnknown
from leafdb_cli import exits
from leafdb_cli.checkpoint import Checkpoint, default_path
from leafdb_cli.door import Door
from leafdb_cli.exits import Quit
from leafdb_cli.keys import key_text
from leafdb_cli.progress import bar
from leafdb_cli.render import Column, human_bytes
from leafdb_cli.session import Session
from leafdb_cli.sources import Entry, Source

if TYPE_CHECKING:
    from leafdb.client.results import Put
    from leafdb.client.sync_client import Client

BATCH_ITEMS: Final = 256
BATCH_BYTES: Final = 4 << 20
PATIENCE_S: Final = 30.0
"""How long a batch is tried again while the cluster does not take it."""
PAUSE_S: Final = 0.25
SAVE_S: Final = 0.5
SHOWN_MAX: Final = 5


@dataclass(slots=True)
class Report:
    """What became of the keys."""

    written: int = 0
    unchanged: int = 0
    value_bytes: int = 0
    conflicts: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    retried: set[bytes | tuple[bytes, bytes]] = field(default_factory=set)
    """Keys whose write had an unknown outcome before it was made again."""

    @property
    def keys(self) -> int:
        """All that were looked at."""
        return self.written + self.unchanged + len(self.conflicts) + len(self.refused)


def import_into(session: Session, client: Client, bucket: str, source: Source, checkpoint_path: Path | None) -> None:
    """The whole command."""
    if session.options.dry_run:
        count = sum(1 for _ in source.entries(None))
        session.note(f"would import {count} keys from {source.path} into {bucket}")
        return
    door = Door(client, bucket)
    job = {"import": str(source.path.absolute()), "format": source.form, "bucket": bucket}
    path = (checkpoint_path or default_path(source.path, "import")) if source.resumable else None
    checkpoint = Checkpoint(path, job)
    if checkpoint.load():
        session.note(f"going on after {checkpoint.count} keys, as {checkpoint.path} says")
    started = time.monotonic()
    report = Report()
    importer = Importer(door, report)
    position, saved_at, already = checkpoint.position, started, checkpoint.count
    try:
        with bar(session.output, f"import into {bucket}", source.total()) as progress:
            for batch in batches(source.entries(checkpoint.position)):
                importer.write(batch)
                position = batch[-1].position
                progress.move(batch[-1].done, f"{report.keys + already} keys, {human_bytes(report.value_bytes)}")
                if time.monotonic() - saved_at >= SAVE_S:
                    checkpoint.save(position, already + report.keys)
                    saved_at = time.monotonic()
    except BaseException:
        # Interrupted, or the cluster is away: what is done is remembered to the last batch.
        if position is not None:
            checkpoint.save(position, already + report.keys)
        raise
    checkpoint.remove()
    _finish(session, bucket, report, time.monotonic() - started)


def batches(entries: Iterable[Entry], items_max: int = BATCH_ITEMS) -> Iterator[list[Entry]]:
    """Entries in runs that are bounded in number and bytes. No key comes twice in one: its writes would not see each
    other."""
    batch: list[Entry] = []
    seen: set[object] = set()
    size = 0
    for entry in entries:
        if batch and (len(batch) >= items_max or size + len(entry.value) > BATCH_BYTES or entry.key in seen):
            yield batch
            batch, seen, size = [], set(), 0
        batch.append(entry)
        seen.add(entry.key)
        size += len(entry.value)
    if batch:
        yield batch


class Importer:
    """Writes batches through a door and keeps the report."""

    def __init__(
        self,
        door: Door,
        report: Report,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._door = door
        self._report = report
        self._clock = clock
        self._sleep = sleep

    def write(self, batch: Sequence[Entry]) -> None:
        """Write a batch. Raises what keeps the cluster from taking it for longer than PATIENCE_S."""
        deadline = self._clock() + PATIENCE_S
        left = list(batch)
        while True:
            left, error = self._try(left)
            if error is None:
                return
            if self._clock() >= deadline:
                raise error
            self._sleep(PAUSE_S)

    def _try(self, entries: list[Entry]) -> tuple[list[Entry], LeafdbError | None]:
        """One go; the entries that are to be tried again, with the reason of one of them."""
        from leafdb.client.results import Failed

        again: list[Entry] = []
        wanted, puts, reason = self._plan(entries, again)
        for entry, result in zip(wanted, self._door.put_many(puts), strict=True):
            if not isinstance(result, Failed):
                self._report.written += 1
                self._report.value_bytes += len(entry.value)
            elif isinstance(result.error, NotApplied) and not result.error.retryable:
                self._report.refused.append(f"{key_text(entry.key)}: {result.error}")
            else:
                if isinstance(result.error, OutcomeUnknown):
                    self._report.retried.add(entry.key)
                again.append(entry)
                reason = result.error
        return again, reason

    def _plan(
        self, entries: list[Entry], again: list[Entry]
    ) -> tuple[list[Entry], list[Put[bytes]], LeafdbError | None]:
        """What is to be written, and after what; reads that failed go to `again`, with the reason of one of them."""
        from leafdb.client.results import Conflict, Failed, Found, Put

        if self._door.lww:
            return entries, [Put(entry.key, entry.value) for entry in entries], None
        reason: LeafdbError | None = None
        wanted: list[Entry] = []
        puts: list[Put[bytes]] = []
        for entry, answer in zip(entries, self._door.get_many([entry.key for entry in entries]), strict=True):
            match answer:
                case Failed(error):
                    if isinstance(error, NotApplied) and not error.retryable:
                        raise error
                    again.append(entry)
                    reason = error
                case Conflict():
                    if entry.key in self._report.retried and all(each.value == entry.value for each in answer.siblings):
                        # Our own write, twice: the first try had come through after all. A write after both ends it.
                        wanted.append(entry)
                        puts.append(Put(entry.key, entry.value, after=answer.context))
                    else:
                        self._report.conflicts.append(key_text(entry.key))
                case Found() if answer.value == entry.value:
                    self._report.unchanged += 1
                case _:
                    wanted.append(entry)
                    puts.append(Put(entry.key, entry.value, after=answer.context))
        return wanted, puts, reason


def _finish(session: Session, bucket: str, report: Report, seconds: float) -> None:
    item = {
        "bucket": bucket,
        "written": report.written,
        "unchanged": report.unchanged,
        "conflicts": len(report.conflicts),
        "refused": len(report.refused),
        "bytes": report.value_bytes,
        "seconds": round(seconds, 3),
        "keys_per_s": round(report.keys / seconds, 1) if seconds else 0.0,
    }
    session.output.items("ImportList", [item], [Column(name) for name in item])
    for line in report.refused[:SHOWN_MAX]:
        session.note(f"refused: {line}")
    for line in report.conflicts[:SHOWN_MAX]:
        session.note(f"has siblings, left alone: {line}")
    if report.refused:
        raise Quit(
            exits.FAILED,
            f"{len(report.refused)} keys were refused",
            "each is told above with its reason; what is right is in",
        )
    if report.conflicts:
        raise Quit(
            exits.CONFLICT,
            f"{len(report.conflicts)} keys have siblings and were left alone",
            "leafdb kv siblings shows those of one; kv put --after resolves them",
        )
