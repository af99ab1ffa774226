"""A `leafdbd` process that joins, whose join is given up, that joins again and is removed: the same process until its
cluster has it no more, and then a code and a sentence.

The cluster it joins is one node in this process, on real sockets and a real disk, so that the plan can be stepped here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from leafdb.config import Address, Config, ListenConfig, NodeConfig
from leafdb.node.admin_founding import cluster_init
from leafdb.node.endings import EXPELLED
from leafdb.node.founding import member_to_wire
from leafdb.node.joining import member_of
from leafdb.node.node import Node
from leafdb.node.real_world import real_world
from leafdb.ring import transitions
from leafdb.ring.staging import ForceRemove, Join
from leafdb.storage.identity import Identity, read_identity
from leafdb.testing.servers import CONFIG, HOST, MORTAL, clean_environment, free_ports
from leafdb.types import NodeId
from leafdb.vfs.disk import DiskFileSystem
from support import plans

pytestmark = pytest.mark.system

SECRET = b"a secret that is long enough for this"
WAIT_S = 60.0


async def until(what: str, condition: Callable[[], bool]) -> None:
    with trio.move_on_after(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.05)
        return
    raise AssertionError(f"not within {WAIT_S:.0f} s: {what}")


@asynccontextmanager
async def founder(directory: Path) -> AsyncIterator[Node]:
    """A cluster of one in this process."""
    client, peer, http = (Address(HOST, port) for port in free_ports(3))
    config = Config(node=NodeConfig(name="n1", data_dir=str(directory)), listen=ListenConfig(client, peer, http))
    async with real_world(str(directory)) as world:
        node = Node(config, world, SECRET)
        ready, stop = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: node.run(drain=trio.Event(), stop=stop, on_ready=ready.set))
            await ready.wait()
            await cluster_init(node, {"name": "test", "members": [member_to_wire(member_of(config))]})
            yield node
            stop.set()


class Newcomer:
    """The process."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        secret = directory / "secret"
        secret.write_bytes(SECRET)
        secret.chmod(0o600)
        client, self.peer, http = (f"{HOST}:{port}" for port in free_ports(3))
        config = CONFIG.format(cluster="test", seeds="", name="n2", client=client, peer=self.peer, http=http)
        (directory / "leafdb.toml").write_text(config.replace("../secret", "secret"))
        self._directory = directory

    def start(self) -> None:
        with (self._directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", MORTAL, "-m", "leafdb.node.main", "--config", "leafdb.toml"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory,
                env=clean_environment(os.environ), start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return (self._directory / "log").read_text()

    def stamp(self) -> Identity:
        identity = read_identity(DiskFileSystem(str(self._directory / "data")))
        assert identity is not None
        return identity

    async def blank(self, node: Node) -> bool:
        """Whether it answers, and is blank."""
        try:
            return bool((await plans.ask(node, self.peer, "join.describe", {}))["blank"])
        except Exception:
            return False


async def await_blank(node: Node, newcomer: Newcomer) -> None:
    with trio.move_on_after(WAIT_S):
        while not await newcomer.blank(node):  # noqa: ASYNC110
            await trio.sleep(0.05)
        return
    raise AssertionError(f"it is not blank\n{newcomer.log}")


async def joined(node: Node, newcomer: Newcomer) -> tuple[NodeId, bytes]:
    """Have it join: its number, and the plan."""
    member, store = await plans.newcomer(node, newcomer.peer)
    await plans.stage(node, Join(member, store))
    plan = await plans.commit(node)
    (number,) = plan.joining
    await plans.admit(node, number)
    await until("they meet", lambda: number in node.view.usable)
    return number, plan.id


def test_a_process_joins_is_blank_again_after_an_abort_joins_and_ends_when_it_is_removed(tmp_path: Path) -> None:
    newcomer = Newcomer(tmp_path / "newcomer")
    newcomer.start()
    try:
        with plans.by_hand():  # the founder alone has the lowest number: nobody else would drive
            trio.run(_live, tmp_path, newcomer)
    finally:
        newcomer.process.kill()
        newcomer.process.wait(WAIT_S)


async def _live(directory: Path, newcomer: Newcomer) -> None:
    async with founder(directory / "founder") as node:
        await await_blank(node, newcomer)
        first = newcomer.stamp()
        number, _ = await joined(node, newcomer)
        assert number == 2
        assert newcomer.stamp().node_id == 2
        await plans.give_up(node)
        await await_blank(node, newcomer)
        assert newcomer.process.poll() is None, "the same process"
        assert newcomer.stamp().store_id != first.store_id
        assert replace(newcomer.stamp(), store_id=b"", boot=0) == Identity(store_id=b"")
        assert "the join was given up" in newcomer.log

        number, plan_id = await joined(node, newcomer)
        assert number == 3
        for transition in (transitions.advance, transitions.finish):
            await plans.change(node, transition, plan_id)
            await until("it knows", lambda: node.gossiper.peer_epochs().get(number) == node.view.epoch)
        store = newcomer.stamp().store_id
        await plans.stage(node, ForceRemove(number))
        plan = await plans.commit(node)
        for transition in (transitions.advance, transitions.finish):
            await plans.change(node, transition, plan.id)
        for _ in range(2):
            await until("it ends", lambda: newcomer.process.poll() is not None)
            assert newcomer.process.returncode == EXPELLED
            assert "n2 (node 3) was removed from cluster 'test' for good, says" in newcomer.log
            assert newcomer.stamp().store_id == store, "its data are as they were"
            newcomer.start()
