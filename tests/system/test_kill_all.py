"""SIGKILL of all nodes at once under write load, twice in a row: every acknowledged write is there after the restart,
in buckets of both durabilities. A killed process takes nothing with it that reached the system's page cache.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from leafdb import BLIND, Conflict, Found, SiblingBucket
from support.processes import Cluster, Load

pytestmark = pytest.mark.system

KEYS = 6_000
BUCKETS = ["synced", "periodic"]


def missing(bucket: SiblingBucket[bytes], expected: Mapping[str, bytes], **options: object) -> list[str]:
    """Keys that do not have exactly their value."""
    keys = list(expected)
    wrong = []
    for at in range(0, len(keys), 500):
        answers = bucket.get_many(keys[at : at + 500], timeout=60.0, **options)  # type: ignore[arg-type]
        wrong += [
            f"{key}: {answer}"
            for key, answer in zip(keys[at : at + 500], answers, strict=True)
            if not isinstance(answer, Found) or answer.value != expected[key]
        ]
    return wrong


def test_every_acknowledged_write_survives_the_kill_of_all_nodes(cluster: Cluster) -> None:
    acknowledged: dict[tuple[str, str], bytes] = {}
    with cluster.connect() as db:
        db.create_bucket("synced", durability="always")
        db.create_bucket("periodic", durability="periodic")
        boots = [1, 1, 1]
        for kill in range(2):
            with Load(cluster, BUCKETS, keys=KEYS, timeout_s=5.0, prefix=f"kill-{kill}-") as load:
                load.allow(KEYS)
                load.await_done(KEYS // 6)
                cluster.kill(0, 1, 2)
                load.stop()
            load.check()
            assert load.done < KEYS, "the nodes were killed after the load, not under it"
            acknowledged |= load.acknowledged
            cluster.start(0, 1, 2)

            for bucket in BUCKETS:
                expected = {key: value for (name, key), value in acknowledged.items() if name == bucket}
                assert len(expected) > KEYS // 16
                assert not missing(db.bucket(bucket), expected, r=2)
                # What was never acknowledged may be there or not, but whole and once.
                unknown = [key for name, key in load.unknown if name == bucket]
                for key, answer in zip(unknown, db.bucket(bucket).get_many(unknown), strict=True):
                    assert not isinstance(answer, Conflict), key
            boots = [later(cluster, node.index, boots[node.index]) for node in cluster.nodes]
            db.bucket("synced").put(f"after kill {kill}", b"writable", after=BLIND, w=3)

        cluster.await_settled()
        for node in cluster.nodes:
            with cluster.connect_to(node.index) as one:
                for bucket in BUCKETS:
                    expected = {key: value for (name, key), value in acknowledged.items() if name == bucket}
                    assert not missing(one.bucket(bucket), expected, local=True), node.name


def later(cluster: Cluster, index: int, boot: int) -> int:
    """The node's boot counter, which rises with each start."""
    listed = cluster.ask(index, "node.list")
    assert listed is not None
    (found,) = [entry["boot"] for entry in listed["nodes"] if entry["name"] == cluster.nodes[index].name]
    assert found > boot
    return int(found)
