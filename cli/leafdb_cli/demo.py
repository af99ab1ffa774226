"""`make demo`: see a cluster lose a node and lose nothing. Three real processes, real files, a SIGKILL, a comparison.

    import the standard library's sources; half way, kill -9 one node; finish; start it again; wait until hints are
    delivered and the exchanges that follow a return are done; then read every key from every node's *own* replica and
    compare it byte for byte with the file

Exit code 0 only if every comparison held. Nothing stays behind: data and sockets live in a temporary directory, and the
nodes end with this process, also on SIGINT and SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from leafdb.errors import LeafdbError
from leafdb_cli import exits
from leafdb_cli.dev_cluster import DevCluster
from leafdb_cli.dev_layout import DevNode
from leafdb_cli.door import Door
from leafdb_cli.exits import Quit
from leafdb_cli.importing import Importer, Report, batches
from leafdb_cli.options import Format, Options
from leafdb_cli.progress import bar
from leafdb_cli.render import Column, human_bytes
from leafdb_cli.repair_view import COLUMNS as REPAIR_COLUMNS
from leafdb_cli.ring import print_ring
from leafdb_cli.session import Session
from leafdb_cli.sources import Entry

if TYPE_CHECKING:
    from leafdb.client.sync_client import Client

NODES: Final = 3
VICTIM: Final = 2
BUCKET: Final = "stdlib"
BATCH_ITEMS: Final = 16
LOOK: Final = "please report it, with the logs of the nodes, as said below"
FILES_MIN: Final = 300
SKIPPED: Final = frozenset({"site-packages", "dist-packages", "test", "tests", "idlelib", "__pycache__"})
READ_ITEMS: Final = 64
QUIET_POLLS: Final = 4
POLL_S: Final = 0.25
WAIT_S: Final = 60.0
TIMEOUT_S: Final = 10.0

COUNTERS: Final = (
    "hints_stored_total", "hints_delivered_total", "read_repairs_total", "exchanges_total",
    "exchange_keys_differing_total", "exchange_keys_sent_total", "exchange_keys_received_total",
)  # fmt: skip


@dataclass(slots=True)
class Rates:
    """How long the steps took, and how much they moved."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, step: str, keys: int, size: int, seconds: float) -> None:
        """One step."""
        self.rows.append(
            {
                "step": step,
                "keys": keys,
                "size": human_bytes(size),
                "seconds": f"{seconds:.2f}",
                "keys/s": f"{keys / seconds:.0f}",
                "rate": f"{human_bytes(size / seconds)}/s",
            }
        )


def source_files() -> list[Entry]:
    """The standard library's sources: key = relative path, value = bytes. Quit when there are too few to mean much."""
    root = sysconfig.get_path("stdlib")
    entries: list[Entry] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        for name in sorted(names):
            path = Path(folder, name)
            if name.endswith(".py") and path.is_file():
                key = os.fsencode(path.relative_to(root).as_posix())
                entries.append(Entry(key, path.read_bytes(), key.hex(), len(entries) + 1))
    if len(entries) < FILES_MIN:
        raise Quit(
            exits.FAILED,
            f"only {len(entries)} sources in {root}, and the demo wants {FILES_MIN}",
            "use a Python that has its library",
        )
    return entries


class Demo:
    """The steps, in order."""

    def __init__(self, session: Session, directory: Path) -> None:
        self._session = session
        self._cluster = DevCluster(directory, session.note)
        self._started = time.monotonic()
        self._rates = Rates()
        self._report = Report()
        self._nodes: Sequence[DevNode] = ()

    def close(self) -> None:
        """Stop every node."""
        self._cluster.down(purge=True)

    def run(self) -> None:
        """All of it. Quit or LeafdbError when something did not hold."""
        entries = source_files()
        self._say(f"starting {NODES} nodes")
        self._nodes = self._cluster.up(NODES, 0)
        with self._client() as client:
            client.create_bucket(BUCKET)
            self._import(client, entries)
            self._say(f"starting {self._victim.name} again")
            self._cluster.start(VICTIM)
            self._await_repair(client)
            self._settle(client, entries)
            self._compare(entries)
            self._show(client)

    @property
    def _victim(self) -> DevNode:
        return self._nodes[VICTIM]

    def _say(self, text: str) -> None:
        self._session.note(f"[{time.monotonic() - self._started:5.1f} s] {text}")

    def _client(self) -> Client:
        from leafdb.client.connect import connect

        return connect("leafdb://" + ",".join(node.client for node in self._nodes), timeout=TIMEOUT_S)

    # -- import, with a death in the middle

    def _import(self, client: Client, entries: Sequence[Entry]) -> None:
        size = sum(len(entry.value) for entry in entries)
        self._say(f"importing {len(entries)} files, {human_bytes(size)}, into bucket {BUCKET} (n=3, r=2, w=2)")
        half = len(entries) // 2
        with bar(self._session.output, "import", len(entries)) as progress:
            self._write(client, entries[:half], f"import, {NODES} nodes", progress.move)
            # The kill runs beside the next batch, so that requests are in flight when the node dies.
            killer = threading.Thread(target=self._cluster.kill_node, args=(self._victim,), name="kill")
            self._say(f"kill -9 {self._victim.name}")
            killer.start()
            try:
                self._write(client, entries[half:], f"import, {NODES - 1} nodes", progress.move)
            finally:
                killer.join()
        retried = len(self._report.retried)
        self._say(
            f"imported {self._report.written + self._report.unchanged} of {len(entries)} keys; {self._victim.name} is "
            f"dead; {retried} writes had an unknown outcome and were made again"
        )
        if self._report.refused or self._report.conflicts:
            raise Quit(exits.FAILED, f"not imported: {[*self._report.refused, *self._report.conflicts][:5]}", LOOK)

    def _write(self, client: Client, entries: Sequence[Entry], step: str, move: Callable[[float, str], None]) -> None:
        importer = Importer(Door(client, BUCKET), self._report)
        started = time.monotonic()
        for batch in batches(entries, items_max=BATCH_ITEMS):
            importer.write(batch)
            move(batch[-1].done, human_bytes(self._report.value_bytes))
        size = sum(len(entry.value) for entry in entries)
        self._rates.add(step, len(entries), size, time.monotonic() - started)

    # -- coming back

    def _await_repair(self, client: Client) -> None:
        """Until no hint waits, no exchange is owed, and it stays so."""
        started = time.monotonic()
        quiet = most = 0
        with bar(self._session.output, "handoff and repair", None) as progress:
            while quiet < QUIET_POLLS:
                status = client.status()
                waiting = status.hints_pending + status.repair_pending
                most = max(most, waiting)
                calm = status.healthy and not waiting and not status.errors
                quiet = quiet + 1 if calm else 0
                progress.move(most - waiting, f"{status.hints_pending} hints, {status.repair_pending} exchanges wait")
                if time.monotonic() - started > WAIT_S:
                    raise Quit(exits.UNHEALTHY, f"not repaired in {WAIT_S:.0f} s: {'; '.join(status.problems)}", LOOK)
                time.sleep(POLL_S)
        self._say(f"hints delivered, exchanges done, {time.monotonic() - started:.1f} s after the return")

    def _settle(self, client: Client, entries: Sequence[Entry]) -> None:
        """A write that was made twice because its first outcome was unknown may have left two siblings with one value:
        one more write, after both, ends that. Any program that retries does the same."""
        from leafdb.client.results import Conflict

        door = Door(client, BUCKET)
        settled = 0
        for entry in entries:
            if entry.key not in self._report.retried:
                continue
            answer = door.get(entry.key, r="all")
            if isinstance(answer, Conflict) and all(each.value == entry.value for each in answer.siblings):
                door.put(entry.key, entry.value, answer.context, w="all")
                settled += 1
        if settled:
            self._say(f"{settled} keys written twice were settled")
            self._await_repair(client)

    # -- proof

    def _compare(self, entries: Sequence[Entry]) -> None:
        self._say("reading every key back from every node's own replica")
        wrong: list[str] = []
        with bar(self._session.output, "compare", len(entries) * len(self._nodes)) as progress:
            done = 0
            for node in self._nodes:
                started = time.monotonic()
                for problem in differences(node, entries):
                    done += 1
                    if problem:
                        wrong.append(f"{node.name}: {problem}")
                    progress.move(done, node.name)
                size = sum(len(entry.value) for entry in entries)
                self._rates.add(f"read back, {node.name}", len(entries), size, time.monotonic() - started)
        if wrong:
            for line in wrong[:10]:
                self._session.note(f"  {line}")
            raise Quit(exits.FAILED, f"{len(wrong)} of {done} comparisons did not hold", LOOK)
        self._say(f"{done} comparisons, every byte as it was written")

    def _show(self, client: Client) -> None:
        output = self._session.output
        output.note("")
        print_ring(self._session, client.admin("ring.show"))
        repairs = client.admin("repair.status")["repairs"]
        if repairs:
            output.note("\nrepairs")
            output.items("RepairList", repairs, REPAIR_COLUMNS)
        output.note("\ncounters")
        stats: Mapping[str, Mapping[str, float]] = client.admin("stats")["stats"]
        rows = [{"node": name, **{each: int(stats[name].get(each, 0)) for each in COUNTERS}} for name in stats]
        columns = [Column(each, each.removesuffix("_total").replace("_", " "), right=True) for each in COUNTERS]
        output.items("CounterList", rows, [Column("node"), *columns])
        output.note("\nrates")
        output.items("RateList", self._rates.rows, [Column(name, right=name != "step") for name in self._rates.rows[0]])


def differences(node: DevNode, entries: Sequence[Entry]) -> Iterator[str]:
    """For each entry, what is wrong with the node's own copy; empty when it is the file, byte for byte."""
    from leafdb.client.connect import connect
    from leafdb.client.results import Failed, Found, Missing

    with connect(f"leafdb://{node.client}", timeout=TIMEOUT_S, routing="listed") as client:
        bucket = client.bucket(BUCKET)
        for start in range(0, len(entries), READ_ITEMS):
            page = entries[start : start + READ_ITEMS]
            for entry, answer in zip(page, bucket.get_many([one.key for one in page], local=True), strict=True):
                name = os.fsdecode(entry.key) if isinstance(entry.key, bytes) else str(entry.key)
                match answer:
                    case Found(value) if value == entry.value:
                        yield ""
                    case Found():
                        yield f"{name} has other bytes"
                    case Missing():
                        yield f"{name} is missing"
                    case Failed(error):
                        yield f"{name}: {error}"
                    case _:
                        yield f"{name} has siblings"


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def main() -> int:
    """The command; its exit code."""
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)
    session = Session(Options(output=Format.TABLE))
    with tempfile.TemporaryDirectory(prefix="leafdb-demo-") as directory:
        demo = Demo(session, Path(directory) / "cluster")
        try:
            demo.run()
        except Quit as quit_:
            session.note(f"demo failed: {quit_.message}\n  {quit_.hint}")
            return quit_.code or exits.FAILED
        except LeafdbError as error:
            session.note(f"demo failed: {exits.explanation(error)}")
            return exits.FAILED
        finally:
            # A second signal must not leave nodes behind.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            demo.close()
    session.note("\nthe demo held: a node was killed half way through, and not a byte was lost")
    return exits.OK


if __name__ == "__main__":
    sys.exit(main())
