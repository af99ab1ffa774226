"""Operators of real processes who type commands: one comes too late with a plan, the control set's majority goes, the
cluster is recovered, and who was removed meanwhile and comes back with its old disk is told why it may not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from leafdb import BLIND, Found
from leafdb.node.endings import EXPELLED
from support.processes import Cluster, eventually

pytestmark = pytest.mark.system

BUCKET = "kept"
UNDERSTOOD = ("--yes", "--i-understand-data-loss")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes of its own."""
    with Cluster(tmp_path_factory.mktemp("majority")) as made:
        try:
            yield made.up()
        finally:
            print(made.logs())


def typed(cluster: Cluster, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A command, and its exit code."""
    ended = cluster.cli(*arguments)
    assert ended.returncode == code, (arguments, ended.returncode, ended.stdout, ended.stderr)
    return ended


def item(cluster: Cluster, *arguments: str) -> dict[str, Any]:
    """The one item that a command shows."""
    (shown,) = json.loads(typed(cluster, *arguments, "-o", "json").stdout)["items"]
    return dict(shown)


def written(cluster: Cluster, first: int, count: int, w: int) -> None:
    """Keys, read back."""
    with cluster.connect_to(0) as db:
        bucket = db.bucket(BUCKET)
        for number in range(first, first + count):
            bucket.put(f"key-{number}", b"%d" % number, after=BLIND, w=w)
            answer = bucket.get(f"key-{number}", r=1)
            assert isinstance(answer, Found)
            assert answer.value == b"%d" % number


def test_a_stale_plan_is_refused_and_a_lost_majority_is_got_over(cluster: Cluster) -> None:
    with cluster.connect() as db:
        db.create_bucket(BUCKET)
    written(cluster, 0, 50, w=3)

    # Somebody else has staged something since this operator looked.
    typed(cluster, "cluster", "stage", "leave", "dev-2")
    looked_at = item(cluster, "cluster", "plan")["plan_id"]
    with cluster.connect_to(1) as other:
        other.admin("cluster.stage", {"change": "leave", "node": "dev-1"}, changes=True)
    assert "stale" in typed(cluster, "cluster", "commit", looked_at, *UNDERSTOOD, code=8).stderr
    typed(cluster, "cluster", "clear", "--yes")

    # Two of three go for good: keys are served, the ring stands still and says why.
    cluster.kill(1, 2)
    eventually("the death is known", lambda: (cluster.ask(0, "status") or {}).get("nodes_up") == 1)
    written(cluster, 50, 50, w=1)
    assert "no majority" in typed(cluster, "cluster", "stage", "leave", "dev-2", code=5).stderr

    # What may be lost is said before anything is done.
    shown = item(cluster, "cluster", "recover", "--dry-run")
    assert shown["without"] == ["dev-1", "dev-2"]
    assert any("only dev-1, dev-2 can have known" in line for line in shown["lost"])
    assert any("no majority of the owners" in line for line in shown["lost"]), shown["lost"]
    typed(cluster, "cluster", "stage", "leave", "dev-2", code=5)
    done = typed(cluster, "cluster", "recover", "--lost", "dev-1", "--lost", "dev-2", *UNDERSTOOD)
    assert "generation 4 has begun" in done.stderr, "higher by one and by the number of the lost"

    # One of them was not lost after all: it follows, and the ring changes again, without the other.
    cluster.indexes = [0, 1]
    cluster.start(1)
    typed(cluster, "cluster", "stage", "force-remove", "dev-2", *UNDERSTOOD)
    typed(cluster, "cluster", "commit", item(cluster, "cluster", "plan")["plan_id"], "--wait", *UNDERSTOOD)
    cluster.spawn(2)
    assert cluster.wait(2) == EXPELLED
    assert "removed" in cluster.log_of(2).splitlines()[-1]
    cluster.await_settled()
    with cluster.connect_to(1) as db:
        for number in range(100):
            answer = db.bucket(BUCKET).get(f"key-{number}", r="all")
            assert isinstance(answer, Found), number
            assert answer.value == b"%d" % number
