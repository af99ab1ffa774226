"""A real process that joins: amid its copies its disk fills, the join is given up, and the same process joins again;
then one it copies from is killed, then it is itself, and it goes on from where it was. Its disk is a small tmpfs.

The whole of what may happen to whom is in tests/sim/test_joins_in_trouble.py; this is that the real disk and the real
SIGKILL do no other.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

import pytest

from leafdb import BLIND, Found
from leafdb.client.sync_client import Client
from leafdb.limits import DISK_FREE_BYTES_HIGH, DISK_FREE_BYTES_LOW, MIB
from support.processes import Cluster, Load, eventually
from support.raw_wire import metric
from support.small_disk import SmallDisk

pytestmark = pytest.mark.system

BUCKET = "joined"
KEYS, VALUE_BYTES = 400, 12 * 1024
SHARE = KEYS * VALUE_BYTES * 3 // 4
BYTES_PER_S = 500_000
RECEIVED = 'leafdb_transfer_bytes_total{direction="received"}'
SOURCE, TARGET = 1, 3
NAME = "dev-3"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, SmallDisk]]:
    """Three nodes, and a fourth with the small disk that is not started."""
    with Cluster(tmp_path_factory.mktemp("trouble"), 4, founders=3) as cluster:
        disk = SmallDisk(cluster.nodes[TARGET].directory / "data")
        try:
            disk.mount(f"size={DISK_FREE_BYTES_HIGH + 64 * MIB}")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no tmpfs can be mounted here (root is needed): {error}")
        try:
            yield cluster.up(), disk
        finally:
            print(cluster.logs())
            cluster.close()
            disk.unmount()


class Join:
    """An operator who has the fourth node join, slowly."""

    def __init__(self, cluster: Cluster, db: Client) -> None:
        self.cluster = cluster
        self.db = db

    def begin(self, address: str) -> None:
        """Returns in the middle of its copies."""
        self.db.admin("cluster.stage", {"change": "join", "address": address}, changes=True)
        plan = self.db.admin("cluster.plan", {})
        self.db.admin("cluster.commit", {"plan_id": plan["plan_id"], "force": False}, changes=True)
        eventually("it takes part", lambda: self.line())
        self.limit(BYTES_PER_S)
        eventually("the middle of its copies", lambda: self.bytes_done() > SHARE // 4)
        assert self.bytes_done() < SHARE

    def limit(self, bytes_per_s: int) -> None:
        """How fast copies may be made."""
        self.db.admin("transfer.limit", {"bytes_per_s": bytes_per_s}, changes=True)

    def line(self) -> Mapping[str, Any]:
        """What the newcomer says of its copies; nothing when it says nothing."""
        items = self.db.admin("transfer.list", {})["items"]
        return next((item for item in items if item["name"] == NAME), {})

    def bytes_done(self) -> int:
        """How much it has copied."""
        return int(self.line().get("bytes_done", 0))

    def waits_for(self, text: str) -> None:
        """The plan waits, and says so."""
        eventually(text, lambda: any(text in said for said in self.db.admin("transfer.list", {})["waiting"]))

    def over(self) -> bool:
        """No plan is in progress."""
        return not self.db.admin("transfer.list", {})["plan_id"]


def test_a_join_whose_disk_fills_is_given_up_and_one_that_is_killed_goes_on(parts: tuple[Cluster, SmallDisk]) -> None:
    cluster, disk = parts
    values = Random(7)
    written: dict[str, bytes] = {}
    with cluster.connect_to(0, timeout=20.0) as db:
        db.create_bucket(BUCKET)
        for number in range(KEYS):
            key = f"key-{number}"
            written[key] = values.randbytes(VALUE_BYTES)
            db.bucket(BUCKET).put(key, written[key], after=BLIND)
        with Load(cluster, [BUCKET], keys=1_200, threads=2, prefix="late-", w="quorum") as load:
            load.allow(300)
            join = Join(cluster, db)
            address = cluster.spawn_blank(TARGET)

            # Its disk is full; the operator gives up; there is room again, and nothing of the join.
            join.begin(address)
            ballast = disk.leave(DISK_FREE_BYTES_LOW // 2)
            eventually("it says so", lambda: "disk is full" in str(db.admin("status", {})["problems"]))
            db.admin("cluster.abort", {}, changes=True)
            assert join.over()
            eventually("it is blank", lambda: (cluster.ask(TARGET, "ping") or {}).get("node") == 0)
            assert "the join was given up" in cluster.log_of(TARGET)
            assert cluster.runs(TARGET), "the same process"
            assert {member["name"] for member in db.admin("node.list", {})["nodes"]} == {"dev-0", "dev-1", "dev-2"}
            ballast.unlink()

            # The same process once more. One of those it copies from is killed, and comes back.
            load.allow(800)
            join.begin(address)
            cluster.kill(SOURCE)
            join.waits_for("dev-1")
            cluster.indexes = [0, 1, 2, TARGET]
            cluster.start(SOURCE)
            assert not join.over()

            # And it itself: it goes on where it was.
            done = join.bytes_done()
            assert join.line()["left"]
            cluster.kill(TARGET)
            join.waits_for(NAME)
            cluster.start(TARGET)
            join.limit(0)
            eventually("the plan is done", join.over)
            received = metric(cluster.nodes[TARGET].http_port, RECEIVED)
            assert received < 1.1 * (SHARE - done / 2), "much of what it had it has not copied again"
            load.allow(1_200)
            load.await_done(1_200)
            load.check()
        cluster.await_settled()
        written |= {key: value for (_, key), value in load.acknowledged.items()}
        assert len(written) > KEYS + 600
    with cluster.connect_to(TARGET) as db:
        assert {member["state"] for member in db.admin("node.list", {})["nodes"]} == {"alive"}
        for key, value in written.items():
            answer = db.bucket(BUCKET).get(key, r="all")
            assert isinstance(answer, Found), f"{key}: {answer}"
            assert answer.value == value
