"""`kv export`: every key of a bucket, in token order, to files or JSON lines.

The scan's cursor and the target's position make the checkpoint, so an interrupted export goes on where it was. How far
it is shows in the token of the last key: tokens are spread evenly, so the share of the ring passed is the share done.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from leafdb.errors import ConnectFailed, DeadlineExceeded, LeafdbError, NotApplied
from leafdb_cli import exits
from leafdb_cli.checkpoint import Checkpoint, default_path
from leafdb_cli.door import Door
from leafdb_cli.exits import Quit
from leafdb_cli.progress import Bar, bar
from leafdb_cli.render import Column
from leafdb_cli.session import Session
from leafdb_cli.targets import Target

if TYPE_CHECKING:
    from leafdb.client.sync_client import Client

PATIENCE_S: Final = 30.0
PAUSE_S: Final = 0.25
SAVE_S: Final = 0.5
SHOWN_MAX: Final = 5
TOKEN_AT: Final = 5
"""A cursor is version u8, bucket u32, then a storage key, whose first 8 bytes are the token."""


def export_from(
    session: Session,
    client: Client,
    bucket: str,
    target: Target,
    checkpoint_path: Path | None,
    r: int | Literal["quorum", "all"] | None,
) -> None:
    """The whole command."""
    door = Door(client, bucket)
    job = {"export": str(target.path.absolute()), "format": target.form, "bucket": bucket}
    path = (checkpoint_path or default_path(target.path, "export")) if target.resumable else None
    checkpoint = Checkpoint(path, job)
    cursor = None
    position = None
    if checkpoint.load():
        cursor, position = bytes.fromhex(checkpoint.position["cursor"]), checkpoint.position["target"]
        session.note(f"going on after {checkpoint.count} keys, as {checkpoint.path} says")
    started = time.monotonic()
    target.open(position)
    try:
        with bar(session.output, f"export of {bucket}", 1.0) as progress:
            export = _Export(door, target, checkpoint, progress, r)
            export.run(cursor)
    finally:
        target.close()
    checkpoint.remove()
    _finish(session, bucket, export, time.monotonic() - started, to_stdout=str(target.path) == "-")


class _Export:
    """The loop: scan, write, save now and then, and go on where a page failed for a reason that passes."""

    def __init__(self, door: Door, target: Target, checkpoint: Checkpoint, progress: Bar, r: Any) -> None:
        self._door = door
        self._target = target
        self._checkpoint = checkpoint
        self._progress = progress
        self._r = r
        self._saved_at = time.monotonic()
        self.already = checkpoint.count
        self.written = 0
        self.skipped: list[str] = []

    def run(self, cursor: bytes | None) -> None:
        """Until the end of the bucket."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            scan = self._door.scan(cursor=cursor, r=self._r)
            try:
                for item in scan:
                    self._take(item)
                    deadline = time.monotonic() + PATIENCE_S
                    if time.monotonic() - self._saved_at >= SAVE_S:
                        self._save(scan.cursor)
                self._progress.move(1.0, f"{self.written + self.already} keys")
                return
            except (NotApplied, DeadlineExceeded, ConnectFailed) as error:
                cursor = scan.cursor
                self._wait_out(error, deadline)
            except (KeyboardInterrupt, SystemExit):
                if scan.cursor is not None:
                    self._save(scan.cursor)
                raise

    def _take(self, item: Any) -> None:
        problem = self._target.write(item)
        if problem:
            self.skipped.append(problem)
        else:
            self.written += 1

    def _wait_out(self, error: LeafdbError, deadline: float) -> None:
        if not error.retryable or time.monotonic() >= deadline:
            raise error
        time.sleep(PAUSE_S)

    def _save(self, cursor: bytes | None) -> None:
        assert cursor is not None, "an item was yielded"
        self._checkpoint.save(
            {"cursor": cursor.hex(), "target": self._target.sync()}, self.already + self.written + len(self.skipped)
        )
        self._saved_at = time.monotonic()
        share = int.from_bytes(cursor[TOKEN_AT : TOKEN_AT + 8], "big") / (1 << 64)
        self._progress.move(share, f"{self.written + self.already} keys")


def _finish(session: Session, bucket: str, export: _Export, seconds: float, *, to_stdout: bool) -> None:
    item = {
        "bucket": bucket,
        "written": export.written,
        "skipped": len(export.skipped),
        "seconds": round(seconds, 3),
        "keys_per_s": round(export.written / seconds, 1) if seconds else 0.0,
    }
    if to_stdout:
        session.note(f"exported {export.written} keys of {bucket}")
    else:
        session.output.items("ExportList", [item], [Column(name) for name in item])
    for line in export.skipped[:SHOWN_MAX]:
        session.note(f"not written: {line}")
    if export.skipped:
        raise Quit(exits.CONFLICT, f"{len(export.skipped)} keys were not written", "--format jsonl takes every key")
