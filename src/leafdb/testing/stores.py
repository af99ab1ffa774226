"""What tests ask of the stores and links of nodes in memory."""

from __future__ import annotations

from typing import Any

from leafdb.errors import StorageError
from leafdb.node.endings import Expelled
from leafdb.node.engine_reads import read_page
from leafdb.node.node import Node
from leafdb.types import TreeId


def pair(one: str, other: str) -> tuple[str, str]:
    """Two hosts, in order."""
    return (one, other) if one < other else (other, one)


def first_of(group: BaseExceptionGroup[Any]) -> StorageError | Expelled:
    """The first error in a group of those that a node ends with by itself."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, StorageError | Expelled)
    return error


async def tree_of(node: Node, tree: TreeId) -> dict[bytes, bytes]:
    """Everything in one tree of a node's store."""
    found: dict[bytes, bytes] = {}
    start = b""
    while True:
        page = await read_page(node.engine, tree, start, None)
        found.update(page.items)
        if page.next_key is None:
            return found
        start = page.next_key
