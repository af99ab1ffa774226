"""A disk that fills, under one node of three: typed refusals, nothing acknowledged is lost, reads go on, the others
serve, and once there is room writes work again by themselves. The disk is a small tmpfs.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator

import pytest

from leafdb import BLIND, Found, NotApplied, OutcomeUnknown, Reason
from leafdb.client.sync_client import Client
from leafdb.limits import DISK_FREE_BYTES_HIGH, DISK_FREE_BYTES_LOW, MIB
from support.processes import Cluster, eventually
from support.raw_wire import Witness
from support.small_disk import SmallDisk

pytestmark = pytest.mark.system

SMALL = DISK_FREE_BYTES_LOW + 32 * MIB
LARGE = DISK_FREE_BYTES_HIGH + 160 * MIB
VALUE_BYTES = 256 * 1024
FULL = 2


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, SmallDisk]]:
    """A cluster of its own whose node 2 has the small disk."""
    with Cluster(tmp_path_factory.mktemp("full")) as cluster:
        disk = SmallDisk(cluster.nodes[FULL].directory / "data")
        try:
            disk.mount(f"size={SMALL}")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no tmpfs can be mounted here (root is needed): {error}")
        try:
            yield cluster.up(), disk
        finally:
            print(cluster.logs())
            cluster.close()
            disk.unmount()


class Writer:
    """Puts values that do not compress, remembers what was acknowledged, and what was refused and how."""

    def __init__(self, bucket: str) -> None:
        self._rng = random.Random(7)
        self._bucket = bucket
        self._number = 0
        self.acknowledged: dict[str, bytes] = {}

    def put(self, client: Client, *, w: int, size: int = VALUE_BYTES) -> NotApplied | OutcomeUnknown | None:
        key, value = f"key-{self._number}", self._rng.randbytes(size)
        self._number += 1
        try:
            client.bucket(self._bucket).put(key, value, after=BLIND, w=w, timeout=10.0)
        except (NotApplied, OutcomeUnknown) as error:
            return error
        self.acknowledged[key] = value
        return None

    def fill(self, client: Client) -> NotApplied:
        """Put until the disk is full."""
        for _ in range(SMALL // VALUE_BYTES):
            refusal = self.put(client, w=3)
            if refusal is not None:
                assert isinstance(refusal, NotApplied), refusal
                assert refusal.reason is Reason.DISK_FULL, refusal
                return refusal
        raise AssertionError("more was acknowledged than the disk can hold")

    def check(self, client: Client, *, local: bool = False) -> None:
        """Everything that was acknowledged is there."""
        for key, value in self.acknowledged.items():
            bucket = client.bucket(self._bucket)
            answer = bucket.get(key, local=True) if local else bucket.get(key, r=2)
            assert isinstance(answer, Found), f"{key}: {answer}"
            assert answer.value == value


def test_a_disk_fills_and_empties_and_nothing_acknowledged_is_lost(parts: tuple[Cluster, SmallDisk]) -> None:
    cluster, disk = parts
    writer = Writer("filling")
    with cluster.connect() as db, cluster.connect_to(FULL) as full, cluster.connect_to(0) as other:
        db.create_bucket("filling")
        with Witness(cluster, pages=(0, 1)):
            # Until the node says so. It is asked for all three copies, so that it cannot do without its own.
            refusal = writer.fill(full)
            assert refusal.outcome == "not_applied"
            assert "bytes are free" in str(refusal)
            assert len(writer.acknowledged) > 10
            status = cluster.ask(0, "status")
            assert status is not None
            assert any("disk is full" in problem for problem in status["problems"])

            # Reads go on, through it too; writes do that can do without its copy, whoever is asked.
            writer.check(full)
            for client in (db, full, other):
                for _ in range(4):
                    assert writer.put(client, w=2, size=100) is None
            # Another coordinator has begun by the time it hears: it cannot say that nothing was applied.
            unknown = writer.put(other, w=3, size=100)
            assert isinstance(unknown, OutcomeUnknown)
            assert unknown.acks < unknown.required == 3

            cluster.kill(FULL)
            cluster.start(FULL)
            writer.check(full)
            writer.fill(full)  # its start has flushed what it had in memory, which made a little room

            disk.enlarge(LARGE)
            eventually("writes work again", lambda: writer.put(full, w=3, size=100) is None)
            assert cluster.runs(FULL)
        # What is kept for it is tried again now and then; a session that is new, at once.
        cluster.kill(FULL)
        cluster.start(FULL)
        cluster.await_settled()
        for client in (full, other):
            writer.check(client, local=True)


def test_a_store_that_does_not_find_a_single_byte_says_so_and_has_lost_nothing(
    parts: tuple[Cluster, SmallDisk],
) -> None:
    """Somebody else has taken the rest of the disk."""
    cluster, disk = parts
    disk.enlarge(LARGE)
    cluster.heal()
    writer = Writer("no-byte")
    with cluster.connect() as db:
        db.create_bucket("no-byte")
        with Witness(cluster, pages=(0, 1)):
            for _ in range(20):
                assert writer.put(db, w=3, size=1_000) is None
            ballast = disk.take_the_rest()
            ends = [writer.put(db, w=2, size=1_000) for _ in range(20)]
            # The node whose log finds no byte stops at once. A put it was coordinating is unknown, and so is one that
            # was sent to it before the client saw it go; the others go on.
            unknown = [end for end in ends if end is not None]
            assert all(isinstance(end, OutcomeUnknown) for end in unknown), unknown
            assert ends[10:] == [None] * 10
            if cluster.runs(FULL):
                cluster.kill(FULL)
            log = cluster.log_of(FULL)
            cluster.spawn(FULL)
            assert cluster.wait(FULL) in (1, 74), "it cannot run, and says why"
            said = cluster.log_of(FULL)[len(log) :]
            assert "No space left" in said or "no room" in said
            assert "Traceback" not in said
            writer.check(db)
            ballast.unlink()
            cluster.start(FULL)
        cluster.await_settled()
        with cluster.connect_to(FULL) as full:
            writer.check(full, local=True)
