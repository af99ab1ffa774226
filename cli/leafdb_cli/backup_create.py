"""`backup create`: snapshots on all nodes, fetched file by file into one directory, read back, and only then named.

Two rounds of snapshots, the second begun when the first is done everywhere: first what each node keeps for others,
then all it has. A hint leaves its holder only when its target has it; so whatever had left before the first round is
with its target in the second. Records that a change of the ring moves have no such order: while one is under way, or
what it left behind is being given away, no backup is begun, and one during which a change began is given up.

Nothing has its final name before it is whole: DIR/NAME.part holds what has come so far, a checkpoint beside it says
which snapshots it is of. Interrupted, the same command goes on with those.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from leafdb.errors import ConfigError, LeafdbError
from leafdb.limits import BACKUP_CHUNK_BYTES_MAX
from leafdb_cli import exits
from leafdb_cli.backup import TIMEOUT_S, damage_text, problems_of
from leafdb_cli.checkpoint import Checkpoint, default_path
from leafdb_cli.exits import Quit
from leafdb_cli.progress import Bar, bar
from leafdb_cli.render import human_bytes
from leafdb_cli.session import Session

if TYPE_CHECKING:
    from leafdb.backup.listing import BackedFile, Listing
    from leafdb.client.sync_client import Client

SNAPSHOT_TIMEOUT_S: Final = 300.0
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
"""A backup's name is a directory's here, and part of a snapshot's on each node."""
THREADS_MAX: Final = 16
HASH_BYTES: Final = 1 << 20


class BackupJob:
    """One run of the command."""

    def __init__(
        self, session: Session, client: Client, directory: Path, name: str, allow_missing: tuple[str, ...], rate: int
    ) -> None:
        """`rate`: bytes a second, 0: as fast as they come."""
        if not NAME.fullmatch(name) or name.endswith(".part"):
            raise ConfigError(f"{name!r} cannot name a backup: at most 40 letters, digits, '-', '_' and '.'")
        self._session = session
        self._client = client
        self._name = name
        self._allowed = allow_missing
        self._rate = rate
        self._final = directory / name
        self._part = directory / f"{name}.part"
        job = {"backup": str(self._final.absolute())}
        self._checkpoint = Checkpoint(default_path(self._final, "backup"), job)

    def run(self) -> Listing:
        """Make the backup; its list. Raises Quit, LeafdbError."""
        if self._final.exists():
            raise Quit(exits.FAILED, f"{self._final} is there already", "take another --name")
        self._part.parent.mkdir(parents=True, exist_ok=True)
        if self._checkpoint.load():
            taken = self._checkpoint.position
            self._session.note(f"going on with the snapshots that {self._checkpoint.path} names")
        else:
            shutil.rmtree(self._part, ignore_errors=True)
            taken = self._take()
            self._checkpoint.save(taken, 0)
        self._part.mkdir(mode=0o700, exist_ok=True)  # every value is in it, and what nodes keep of passwords
        with ExitStack() as stack:
            clients = {member["id"]: self._connect(stack, member) for member in taken["members"]}
            files = self._fetch(clients, taken)
            listing = self._finish(taken, files)
            self._drop(clients, taken["stamp"])
        self._checkpoint.remove()
        return listing

    # -- snapshots

    def _take(self) -> dict[str, Any]:
        """Make the snapshots; everything the rest of the run needs to know of them, as JSON has it."""
        state = self._client.admin("backup.state")
        missing = self._missing(state)
        members = [dict(member) for member in state["members"] if member["name"] not in missing]
        stamp = f"{self._name}-{time.time_ns() // 1_000_000}"
        begun_ms = time.time_ns() // 1_000_000
        with ExitStack() as stack:
            clients = {member["id"]: self._connect(stack, member) for member in members}
            try:
                self._snapshots(clients, stamp, hints=True)
                taken_ms = time.time_ns() // 1_000_000
                self._snapshots(clients, stamp, hints=False)
                after = self._client.admin("backup.state")
                if after["ring"] != state["ring"] or after["changing"]:
                    raise Quit(exits.FAILED, "the ring was changed meanwhile", "run this again when that is done")
                self._refuse_busy(after)
            except BaseException:
                self._drop(clients, stamp)
                raise
        return {
            "stamp": stamp,
            "cluster": state["cluster"],
            "cluster_id": bytes(state["cluster_id"]).hex(),
            "epoch": state["epoch"],
            "partitions": state["partitions"],
            "buckets": after["buckets"],
            "begun_ms": begun_ms,
            "taken_ms": taken_ms,
            "members": sorted(members, key=lambda member: int(member["id"])),
            "missing": sorted(missing),
        }

    def _missing(self, state: Mapping[str, Any]) -> set[str]:
        """The members to go on without. Quit when that is not allowed, or something else speaks against a backup."""
        if state["changing"]:
            raise Quit(exits.FAILED, "the ring is changing", "run this again when leafdb cluster plan shows none")
        self._refuse_busy(state)
        down = {str(name): str(reason) for name, reason in state["errors"].items()}
        not_down = sorted(set(self._allowed) - set(down))
        if not_down:
            raise Quit(exits.USAGE, f"{', '.join(not_down)} is no member that is down", "leave --allow-missing away")
        refused = sorted(set(down) - set(self._allowed))
        if refused:
            told = "; ".join(f"{name}: {down[name]}" for name in refused)
            raise Quit(exits.UNAVAILABLE, f"not every member answers ({told})", "bring it back, or --allow-missing it")
        if down:
            self._refuse_too_many(len(down), state)
        return set(down)

    def _refuse_too_many(self, down: int, state: Mapping[str, Any]) -> None:
        """A write counted w copies on as many nodes: with fewer than w nodes missing one of them is in the backup."""
        from leafdb.model.bucket import BucketProperties, count_of

        for wire in state["buckets"]:
            bucket = BucketProperties.from_wire(wire)
            w = count_of(bucket.w, min(bucket.n, len(state["members"])))
            if down >= w:
                what = f"a write to {bucket.name} was acknowledged with {w} copies, and {down} members are missing"
                raise Quit(
                    exits.UNAVAILABLE,
                    f"{what}: an acknowledged write might not be in the backup",
                    "bring one of them back",
                )

    def _refuse_busy(self, state: Mapping[str, Any]) -> None:
        if state["busy"]:
            told = "; ".join(f"{name}: {why}" for name, why in state["busy"].items())
            raise Quit(exits.UNAVAILABLE, f"records are moving between nodes ({told})", "run this again in a while")

    def _snapshots(self, clients: Mapping[int, Client], stamp: str, *, hints: bool) -> None:
        """One on each node, at about the same time; returns when all are durable."""
        args = {"name": _snapshot_of(stamp, hints=hints), "hints": hints}

        def take(client: Client) -> None:
            client.admin("backup.snapshot", args, changes=True, timeout=SNAPSHOT_TIMEOUT_S)

        with ThreadPoolExecutor(min(THREADS_MAX, max(1, len(clients)))) as pool:
            list(pool.map(take, clients.values()))

    def _drop(self, clients: Mapping[int, Client], stamp: str) -> None:
        """Take the snapshots away again, as far as nodes answer: what stays costs them room."""
        for client in clients.values():
            for hints in (True, False):
                try:
                    client.admin("backup.drop", {"name": _snapshot_of(stamp, hints=hints)}, timeout=TIMEOUT_S)
                except LeafdbError as error:
                    name = _snapshot_of(stamp, hints=hints)
                    self._session.note(f"snapshot {name} could not be dropped, and takes room there: {error}")

    # -- files

    def _fetch(self, clients: Mapping[int, Client], taken: Mapping[str, Any]) -> list[BackedFile]:
        """All files of all nodes."""
        wanted: list[tuple[Client, str, str, str, int]] = []
        for number, client in clients.items():
            for hints in (True, False):
                snapshot = _snapshot_of(taken["stamp"], hints=hints)
                directory = f"{'hints' if hints else 'node'}-{number}"
                wanted += [(client, snapshot, directory, path, size) for path, size in _listed(client, snapshot)]
        total = sum(size for *_, size in wanted)
        with bar(self._session.output, f"backup of {taken['cluster']}", float(total)) as progress:
            pace = _Pace(self._rate, progress)
            return [self._fetch_one(*each, pace) for each in wanted]

    def _fetch_one(
        self, client: Client, snapshot: str, directory: str, path: str, size: int, pace: _Pace
    ) -> BackedFile:
        """One file, from where an earlier run stopped; synced, with its hash."""
        from leafdb.backup.listing import BackedFile

        target = self._part / directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with target.open("ab+") as file:
            if file.tell() > size:
                file.truncate(0)
            file.seek(0)
            while data := file.read(HASH_BYTES):
                digest.update(data)
                pace.had(len(data))
            have = file.tell()
            while have < size:
                args = {"name": snapshot, "path": path, "offset": have, "size": BACKUP_CHUNK_BYTES_MAX}
                data = bytes(client.admin("backup.read", args)["data"])
                if not data or have + len(data) > size:
                    raise Quit(
                        exits.FAILED,
                        f"{directory}/{path}: the node has {have + len(data)} bytes of {size}",
                        "begin a new one under another --name",
                    )
                file.write(data)
                digest.update(data)
                have += len(data)
                pace.fetched(len(data))
            file.flush()
            os.fsync(file.fileno())
        return BackedFile(f"{directory}/{path}", size, digest.hexdigest())

    def _finish(self, taken: Mapping[str, Any], files: list[BackedFile]) -> Listing:
        """Read everything back, write the list, give the backup its name."""
        from leafdb.backup.listing import LIST_PATH, BackedNode, Listing
        from leafdb.model.bucket import BucketProperties

        listing = Listing(
            name=self._name,
            cluster=taken["cluster"],
            cluster_id=taken["cluster_id"],
            epoch=taken["epoch"],
            partitions=taken["partitions"],
            begun_ms=taken["begun_ms"],
            ended_ms=time.time_ns() // 1_000_000,
            buckets=tuple(map(BucketProperties.from_wire, taken["buckets"])),
            nodes=tuple(BackedNode(each["id"], each["name"], taken["taken_ms"]) for each in taken["members"]),
            files=tuple(sorted(files, key=lambda file: file.path)),
            missing=tuple(taken["missing"]),
        )
        listing.check()
        with suppress(FileNotFoundError):
            (self._part / LIST_PATH).unlink()
        if problems := problems_of(self._session.output, self._part, listing):
            damage = damage_text(self._part, problems)
            raise Quit(exits.FAILED, f"{damage}\nnothing was named", f"remove {self._part} and {self._checkpoint.path}")
        with (self._part / LIST_PATH).open("wb") as file:
            file.write(listing.encode())
            file.flush()
            os.fsync(file.fileno())
        for inside, _, _ in os.walk(self._part):
            _sync_directory(Path(inside))
        self._part.rename(self._final)
        _sync_directory(self._final.parent)
        return listing

    def _connect(self, stack: ExitStack, member: Mapping[str, Any]) -> Client:
        """A client of this node alone."""
        timeout_s = self._session.request_s(TIMEOUT_S)
        return stack.enter_context(self._session.connect(str(member["client"]), timeout_s=timeout_s))


class _Pace:
    """How much has come, no faster than it may."""

    def __init__(self, rate: int, progress: Bar) -> None:
        self._rate = rate
        self._progress = progress
        self._started = time.monotonic()
        self._fetched = 0
        self._had = 0

    def had(self, size: int) -> None:
        """Bytes of an earlier run."""
        self._had += size
        self._show()

    def fetched(self, size: int) -> None:
        """Bytes that came now; returns when the next may."""
        self._fetched += size
        self._show()
        if self._rate:
            time.sleep(max(0.0, self._fetched / self._rate - (time.monotonic() - self._started)))

    def _show(self) -> None:
        done = self._had + self._fetched
        self._progress.move(float(done), human_bytes(done))


def _snapshot_of(stamp: str, *, hints: bool) -> str:
    return f"{stamp}-hints" if hints else stamp


def _listed(client: Client, snapshot: str) -> Iterator[tuple[str, int]]:
    """The files of a snapshot. Quit for a name that no file of a store has: it would be a path here."""
    from leafdb.storage.store_files import is_store_file

    after, more = "", True
    while more:
        page = client.admin("backup.files", {"name": snapshot, "after": after})
        more = bool(page["more"])
        for path, size in page["files"]:
            if not isinstance(path, str) or not is_store_file(path) or path <= after:
                raise Quit(
                    exits.FAILED,
                    f"a node lists {path!r:.80}, which no store has",
                    "is it of a newer version? leafdb node list",
                )
            after = path
            yield path, int(size)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
