"""Whose disk it is: a node whose data directory was lost, rolled back or copied is not the member it says it is, and is
kept out with the reason; the cluster serves without it, and its own directory brings it back.

Such a store could mint dots that exist already, which is the one fault no merge can mend.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from leafdb import BLIND, Found, NotApplied, Reason
from leafdb.node.endings import EXPELLED
from leafdb_cli.dev_layout import CLUSTER_NAME
from support.processes import Cluster, eventually

pytestmark = pytest.mark.system


@pytest.fixture
def data(cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """Node 2 is stopped, and this is its data directory. Whatever a test does to it, in the end it is what `saved` in
    the test's own directory holds."""
    data = cluster.nodes[2].directory / "data"
    with cluster.connect() as db:
        db.create_bucket("identity", exist_ok=True)
        db.bucket("identity").put(tmp_path.name, b"before", after=BLIND, w=3)
    assert cluster.stop(2) == 0
    copy(data, tmp_path / "saved")
    yield data
    if cluster.runs(2):
        cluster.kill(2)
    copy(tmp_path / "saved", data)


def copy(source: Path, target: Path) -> None:
    """Make `target` what `source` is."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def serves(cluster: Cluster, key: str) -> None:
    """The two others do without it."""
    with cluster.connect() as db:
        value = db.bucket("identity").get(key)
        assert isinstance(value, Found)
        db.bucket("identity").put(key, value.value + b".", after=value.context)


def found_again(cluster: Cluster) -> str:
    """What `cluster init` with the same members says: the reason it refuses."""
    with cluster.connect_to(0, timeout=20.0) as client, pytest.raises(NotApplied) as caught:
        client.admin(
            "cluster.init", {"name": CLUSTER_NAME, "members": [node.member() for node in cluster.nodes]}, changes=True
        )
    return str(caught.value)


def test_a_node_that_lost_its_data_directory_does_not_become_the_member_it_was(
    cluster: Cluster, data: Path, tmp_path: Path
) -> None:
    shutil.rmtree(data)
    for _ in range(3):  # the count of its starts passes what its peers remember
        cluster.spawn(2)
        pong = eventually("node 2 answers", lambda: cluster.ask(2, "ping"))
        assert pong["node"] == 0, "an empty directory belongs to no member"
        reason = found_again(cluster)
        assert "dev-2 is a member already" in reason
        assert "data directory" in reason
        assert (cluster.ask(2, "ping") or {})["node"] == 0
        cluster.kill(2)
    cluster.spawn(2)
    eventually("node 2 answers", lambda: cluster.ask(2, "ping"))
    with cluster.connect_to(2) as two, pytest.raises(NotApplied) as caught:
        two.bucket("identity").get(tmp_path.name, timeout=2.0)
    assert caught.value.reason is Reason.NOT_READY
    status = cluster.ask(0, "status")
    assert status is not None
    assert status["nodes_up"] == 2
    serves(cluster, tmp_path.name)


def test_a_disk_that_was_rolled_back_is_refused_and_said_to_be(cluster: Cluster, data: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    copy(data, old)
    for _ in range(2):
        cluster.start(2)
        assert cluster.stop(2) == 0
    copy(data, tmp_path / "saved")
    copy(old, data)
    for why in ("is an old copy: ", "from a copy of the data directory"):  # the second time it has started as often
        cluster.spawn(2)
        assert cluster.wait(2) == EXPELLED
        last_words = cluster.log_of(2).splitlines()[-1]
        assert why in last_words
        assert "newest directory" in last_words
    # Whoever meets it first sends it away; it need not have met the other by then.
    assert any('"why": "rolled_back"' in cluster.log_of(index) for index in (0, 1))
    statuses = [cluster.ask(index, "status") for index in (0, 1)]
    problems = [problem for status in statuses if status is not None for problem in status["problems"]]
    assert any("it is refused: clone" in problem for problem in problems), problems
    assert all(status is not None and status["nodes_up"] == 2 and not status["healthy"] for status in statuses)
    serves(cluster, tmp_path.name)


def test_a_data_directory_of_another_member_is_refused_by_name(cluster: Cluster, data: Path, tmp_path: Path) -> None:
    """Two data directories that were exchanged by mistake: nobody serves under another's name."""
    assert cluster.stop(1) == 0
    copy(cluster.nodes[1].directory / "data", data)
    cluster.spawn(2)
    assert cluster.wait(2) == 1
    assert "node.name: it is 'dev-2'" in cluster.log_of(2)
    assert "belongs to 'dev-1'" in cluster.log_of(2)
    cluster.start(1)
    serves(cluster, tmp_path.name)
