"""Nodes that hear of no new metadata, whatever they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from leafdb.node.node import Node
from leafdb.ring.metadata import ClusterMetadata


@contextmanager
def deaf(*nodes: Node) -> Iterator[None]:
    """For so long they stay with what they have; afterwards they hear as ever."""

    def learn(_: ClusterMetadata, done: Callable[[], None] | None = None) -> None:
        if done is not None:
            done()

    for node in nodes:
        node.register.learn = learn  # type: ignore[method-assign, assignment]
    yield
    for node in nodes:
        del node.register.learn
