"""The life of a ring, with real processes and an operator who types commands: it grows, loses machines and shrinks
under load, and nothing acknowledged is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from leafdb import Found
from leafdb.model.key import encode_key
from leafdb.types import FIRST_BUCKET_ID, BucketId
from support.disks import records_on, values_of
from support.processes import Cluster, Load, eventually
from support.reading import Reader

pytestmark = pytest.mark.system

KEYS_A_STAGE = 2_500
BUCKET = "life"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One node, and five more that are not started."""
    with Cluster(tmp_path_factory.mktemp("life"), 6, founders=1) as made:
        try:
            yield made.up()
        finally:
            print(made.logs())


class Operator:
    """Types commands and reads what comes back."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def run(self, *arguments: str, code: int = 0) -> str:
        """A command that ends so; what it printed."""
        ended = self.cluster.cli(*arguments)
        assert ended.returncode == code, (arguments, ended.returncode, ended.stdout, ended.stderr)
        return ended.stdout

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """A command that answers a list."""
        found: list[dict[str, Any]] = json.loads(self.run(*arguments, "-o", "json"))["items"]
        return found

    def change(self, *changes: tuple[str, ...]) -> dict[str, Any]:
        """Stage these, look at the plan, commit it, see it through; the plan as it was shown."""
        for change in changes:
            self.run("cluster", "stage", *change)
        (plan,) = self.items("cluster", "plan")
        self.run("cluster", "commit", plan["plan_id"], "--wait")
        return plan


def check_ring(cluster: Cluster, operator: Operator) -> None:
    """Every member owns its fair share within one partition, and every list is on distinct machines, as far as there
    are enough."""
    shown = operator.items("ring", "show")
    names = {cluster.nodes[index].name for index in cluster.indexes}
    assert {each["name"] for each in shown} == names
    owned = [int(each["owned"]) for each in shown]
    assert sum(owned) == 256
    assert max(owned) - min(owned) <= 1
    if len(names) >= 3:
        with cluster.connect() as db:
            assert db.admin("ring.show", {})["warnings"] == []


def check_read(cluster: Cluster, load: Load) -> None:
    """Every acknowledged write, read from a quorum."""
    with cluster.connect() as db:
        bucket = db.bucket(BUCKET)
        for (_, key), value in load.acknowledged.items():
            answer = bucket.get(key, r=2)
            assert isinstance(answer, Found), f"{key}: {answer}"
            assert answer.value == value


def check_copies(cluster: Cluster, load: Load) -> None:
    """Every acknowledged write is on the disk of each of the three that are left: all have stopped, and are looked at
    from outside."""
    for index in cluster.indexes:
        assert cluster.stop(index) == 0
    for index in cluster.indexes:
        records = records_on(cluster.nodes[index].directory / "data", BucketId(FIRST_BUCKET_ID))
        for (_, key), value in load.acknowledged.items():
            record = records.get(encode_key(key))
            assert record is not None, f"{cluster.nodes[index].name} has no copy of {key}"
            assert values_of([record]) == [value]
    cluster.start(*cluster.indexes)


def test_a_ring_grows_loses_machines_and_shrinks_under_load(cluster: Cluster) -> None:
    operator = Operator(cluster)
    with cluster.connect() as db:
        db.create_bucket(BUCKET)
    with (
        Load(cluster, [BUCKET], keys=8 * KEYS_A_STAGE, threads=4, w="quorum") as load,
        Reader(cluster, load, seed=4) as reader,
    ):
        stages = count(1)

        def go_on() -> None:
            """Have some thousand writes under way during what comes."""
            stage = next(stages)
            load.await_done((stage - 1) * KEYS_A_STAGE)
            load.allow(stage * KEYS_A_STAGE)
            load.await_done((stage - 1) * KEYS_A_STAGE + 100)

        # One to three, three to five.
        for indexes in ((1, 2), (3, 4)):
            addresses = [cluster.spawn_blank(index) for index in indexes]
            go_on()
            plan = operator.change(*(("join", address) for address in addresses))
            cluster.indexes += indexes
            assert plan["copies_ratio"] <= 1.1
            assert plan["moved_ratio"] <= 1.1
            check_ring(cluster, operator)

        # A machine dies, and a fresh one takes its place.
        go_on()
        cluster.kill(3)
        address = cluster.spawn_blank(5)
        operator.change(("replace", cluster.nodes[3].name, address))
        cluster.indexes = [0, 1, 2, 4, 5]
        check_ring(cluster, operator)

        # One leaves, and ends by itself.
        go_on()
        operator.change(("leave", cluster.nodes[4].name))
        cluster.indexes = [0, 1, 2, 5]
        assert cluster.wait(4) == 77
        check_ring(cluster, operator)

        # One dies, and nobody comes in its place.
        go_on()
        cluster.kill(2)
        operator.change(("force-remove", cluster.nodes[2].name, "--yes", "--i-understand-data-loss"))
        cluster.indexes = [0, 1, 5]
        check_ring(cluster, operator)

        load.stop()
        load.check()
        reader.check()
        hard = [error for error in load.refused.values() if not error.retryable]
        assert not hard, hard
        assert len(load.acknowledged) > 4 * KEYS_A_STAGE
        print(f"{len(load.acknowledged)} acknowledged, {len(load.unknown)} unknown, {len(load.refused)} refused")
        print(f"{reader.found} read, {len(reader.failed)} failed")
    cluster.await_settled()
    check_read(cluster, load)
    check_copies(cluster, load)

    # A member that was removed comes back with its disk: it is refused, and says why.
    cluster.spawn(2)
    assert cluster.wait(2) == 77
    assert "removed" in cluster.log_of(2)
    eventually("the others are well", lambda: cluster.cli("status", "--check").returncode == 0)
