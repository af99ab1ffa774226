"""Single connections that are stalled: one direction of the lane of requests between two nodes, while the others go on.

One flow whose packets get lost and are sent again much later. Nobody is suspected of anything: hints are delivered and
ranges are compared over the lane of bulk, proofs are made over that of control; puts, acknowledgements and answers come
when all of that is over.

A peer that hears nothing on a session for six seconds gives it up, and one that waits as long for the rest of a frame
gives up ten seconds later (`transport/sweeper`); what comes after that reaches nobody. So that it does not happen,
somebody lets a little pass now and then (`drip`). What is given up all the same is made anew, and stalled anew.
"""

from __future__ import annotations

from random import Random
from typing import Final

import trio

from leafdb.node.node import Node
from leafdb.sim.stage import Stage
from leafdb.testing.cluster import host_of
from leafdb.testing.streams import MemoryByteStream, Pipe
from leafdb.types import NodeId
from leafdb.wire.registry import Lane

NAME: Final = "stalled_connection"
"""In stories and counts."""
DRIP_S: Final = (2.0, 4.0)
APART_S: Final = 0.3
"""How long after what was stalled on one connection comes that of the next, in the mean."""

Way = tuple[NodeId, NodeId]
"""From the node of one machine to that of another."""


def running(stage: Stage) -> dict[NodeId, Node]:
    """The nodes that serve, by their machines."""
    nodes = stage.cluster.nodes
    return {machine: nodes[machine] for machine in sorted(nodes) if nodes[machine].ready}


def flow(stage: Stage, source: NodeId, target: NodeId) -> Pipe | None:
    """What leads from one machine to another on the lane of requests; None: nothing at present."""
    nodes = running(stage)
    if source == target or source not in nodes or target not in nodes:
        return None
    session = nodes[source].peers.session(nodes[target].view.self_id, Lane.REQUESTS)
    if session is None:
        return None
    assert isinstance(session.stream, MemoryByteStream)
    return session.stream.outgoing


class Stalled:
    """Some ways, from now on until `release` or `let_go`."""

    def __init__(self, stage: Stage, rng: Random, ways: list[Way]) -> None:
        self._stage = stage
        self._rng = rng
        self._ways = ways
        self._pipes: dict[Pipe, None] = {}
        self._drip_at_s = trio.current_time() + rng.uniform(*DRIP_S)
        stage.trace.fault(NAME, ", ".join(f"{host_of(source)}>{host_of(target)}" for source, target in ways))
        self.hold()

    def hold(self) -> None:
        """Stall the sessions that are there now, and let a little pass if it is time to."""
        drips = trio.current_time() >= self._drip_at_s
        for source, target in self._ways:
            pipe = flow(self._stage, source, target)
            if pipe is None:
                continue
            if pipe not in self._pipes:  # as at first; or the session before it was given up, or broke
                self._pipes[pipe] = None
                pipe.stall()
            elif drips:
                pipe.let_pass(1)
        if drips:
            self._drip_at_s = trio.current_time() + self._rng.uniform(*DRIP_S)

    async def release(self) -> None:
        """All arrives, on one connection after the other."""
        for pipe in self._rng.sample(list(self._pipes), len(self._pipes)):
            pipe.resume()
            await trio.sleep(self._rng.expovariate(1 / APART_S))

    def let_go(self) -> None:
        """All arrives, at once."""
        for pipe in self._pipes:
            pipe.resume()
