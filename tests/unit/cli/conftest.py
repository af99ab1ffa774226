"""A node whose admin verbs a test gives, and the command line against it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from leafdb_cli import node as node_commands
from leafdb_cli import repair, session, storage, transfer_progress
from support.stand_in import Ended, Run, StandIn, run_cli
from unit.client.fake_node import FakeCluster


@pytest.fixture
def node() -> StandIn:
    """Verbs to be given, and what was asked of them."""
    return StandIn()


@pytest.fixture
def run(node: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """The command line, by its environment connected to that node; polling does not sleep."""
    for module, name in (
        (transfer_progress, "POLL_S"),
        (node_commands, "POLL_S"),
        (session, "WATCH_S"),
        (repair, "POLL_S"),
        (storage, "POLL_S"),
    ):
        monkeypatch.setattr(module, name, 0.0)
    with FakeCluster() as cluster:
        monkeypatch.setattr(cluster, "reply_to", node.reply_to)
        monkeypatch.setenv("LEAFDB_NODE", str(cluster.node.address))

        def one(*arguments: str, **how: Any) -> Ended:
            return run_cli(monkeypatch, *arguments, **how)

        yield one
