"""How clients come in: a name that is nobody's costs the node the same work as one that is somebody's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from leafdb.config import AuthConfig, Config
from leafdb.limits import SCRAM_ITERATIONS, SCRAM_SALT_BYTES
from leafdb.model.scram import Verifier, fake_verifier
from leafdb.node import front_door
from leafdb.node.front_door import FrontDoor
from leafdb.node.metrics import Metrics
from leafdb.node.view import ClusterView
from leafdb.ring import account_changes as changes
from leafdb.types import NodeId
from support.clusters import cluster

SECRET = b"the secret of the cluster"
KEPT = Verifier(b"s" * 16, SCRAM_ITERATIONS, b"k" * 32, b"v" * 32)


def door_of() -> FrontDoor:
    """The door of a node that knows alice, and bob, who has no password."""
    metadata = changes.create_user(changes.create_user(cluster(), "alice", KEPT, []), "bob", None, [])
    view = ClusterView()
    view.install(NodeId(1), metadata)
    node: Any = SimpleNamespace(
        config=Config(auth=AuthConfig(mode="required")),
        view=view,
        world=SimpleNamespace(now=lambda: 0.0, now_ms=lambda: 1_000),
        coordinator=SimpleNamespace(refuse=None),
        catch_up=SimpleNamespace(wait=None),
        metrics=Metrics(),
    )
    return FrontDoor(node, SECRET)


def test_nobody_and_somebody_cost_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The difference of a few microseconds, measured often enough, would tell who there is."""
    door = door_of()
    made: list[str] = []

    def counted(secret: bytes, user: str, iterations: int) -> Verifier:
        made.append(user)
        return fake_verifier(secret, user, iterations)

    monkeypatch.setattr(front_door, "fake_verifier", counted)
    for user in ("alice", "bob", "mallory"):
        found = door.verifier(user)
        assert (len(found.salt), found.iterations) == (SCRAM_SALT_BYTES, SCRAM_ITERATIONS)
        assert (found == KEPT) == (user == "alice")
    assert made == ["alice", "bob", "mallory"]
